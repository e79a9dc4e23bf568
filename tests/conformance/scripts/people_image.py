"""Binary payload: reads an image from the body or a form, answers with its size or with other image
bytes."""

from io import BytesIO

from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse
from PIL import Image


def init():
    print("This is init()")


@rawhttp
def run(request: AMLRequest):
    print("This is run()")
    if request.method == "GET":
        return AMLResponse(f"{request.full_path}\n", 200)
    if request.method != "POST":
        return AMLResponse("bad request", 500)
    try:
        source = request.files["image"].stream if request.files else BytesIO(request.get_data(False))
        image = Image.open(source)
    except OSError as error:
        return AMLResponse(type(error).__name__, 400)
    if request.args.get("flip"):
        out = BytesIO()
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).convert("RGB").save(out, format="BMP")
        response = AMLResponse(out.getvalue(), 200)
        response.mimetype = "image/bmp"
        return response
    return AMLResponse({"size": image.size, "mode": image.mode}, 200, json_str=True)
