"""A raw script that answers with what it sees of the request, by the `show` argument of the
query."""

import json

import flask
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse


def files(r):
    found = [
        [
            key,
            f.filename,
            f.content_type,
            f.mimetype,
            f.name,
            f.read().decode("latin-1"),
            f.stream.seekable(),
            f.headers.to_wsgi_list(),
        ]
        for key in r.files
        for f in r.files.getlist(key)
    ]
    return {"files": found, "form": r.form.to_dict(flat=False)}


def picture(r):
    f = r.files["image"]
    data = f.stream.read()
    f.stream.seek(0)
    return [len(data), f.read(4).decode("latin-1"), f.content_length]


def lines(r):
    return [line.decode("latin-1") for line in r.stream]


def data_twice(r):
    return [r.get_data(cache=False).decode("latin-1"), r.get_data().decode("latin-1")]


def environ(r):
    return {
        key: repr(value)
        for key, value in sorted(r.environ.items())
        if key.isupper() and key not in ("REMOTE_PORT", "SERVER_SOFTWARE")
    }


def wsgi(r):
    e = r.environ
    names = [
        "wsgi.multiprocess",
        "wsgi.multithread",
        "wsgi.run_once",
        "wsgi.url_scheme",
        "wsgi.version",
        "wsgi.input_terminated",
    ]
    return [
        {n: repr(e.get(n)) for n in names},
        e["SERVER_PORT"].isdigit(),
        e["REMOTE_PORT"].isdigit(),
        "wsgi.input" in e,
        "wsgi.errors" in e,
    ]


def set_attribute(r):
    r.mine = 5
    return [flask.request.mine, r.mine]


def context(r):
    return [
        flask.request.path,
        flask.g.api_name,
        flask.current_app.name,
        flask.url_for("main.handle_score"),
        type(flask.session).__name__,
        sorted(rule.rule for rule in flask.current_app.url_map.iter_rules()),
    ]


def ids(r):
    g = flask.g
    return [
        g.request_id,
        g.client_request_id,
        g.legacy_client_request_id,
        type(g.start_datetime).__name__,
        type(g.starting_perf_counter).__name__,
    ]


def change_limits(r):
    c = flask.current_app.config
    return [
        c["MAX_CONTENT_LENGTH"],
        c["MAX_FORM_MEMORY_SIZE"],
        c["MAX_FORM_PARTS"],
        r.max_content_length,
        r.max_form_memory_size,
        r.max_form_parts,
    ]


SHOW = {
    "method": lambda r: r.method,
    "kind": lambda r: [
        type(r).__name__,
        isinstance(r, flask.Request),
        isinstance(r, AMLRequest),
        r._get_current_object().__class__.__name__,
    ],
    "urls": lambda r: [
        r.path,
        r.full_path,
        r.url,
        r.base_url,
        r.host,
        r.root_path,
        r.url_root,
        r.host_url,
        r.scheme,
        r.is_secure,
        r.script_root,
    ],
    "args": lambda r: [
        r.args.to_dict(flat=False),
        type(r.args).__name__,
        r.query_string.decode("latin-1"),
        sorted(r.values.keys()),
    ],
    "headers": lambda r: [
        list(r.headers.items()),
        r.headers.get("x-a"),
        "X-A" in r.headers,
        r.headers.getlist("x-a"),
        type(r.headers).__name__,
    ],
    "data": lambda r: r.data.decode("latin-1"),
    "get-data": lambda r: r.get_data(as_text=True),
    "get-data-false": lambda r: r.get_data(False).decode("latin-1"),
    "data-twice": data_twice,
    "data-form": lambda r: [r.form.to_dict(flat=False), r.get_data().decode("latin-1")],
    "parse-form": lambda r: [r.get_data(parse_form_data=True).decode("latin-1"), r.form.to_dict()],
    "json": lambda r: r.json,
    "get-json-force": lambda r: r.get_json(force=True),
    "get-json-silent": lambda r: [r.get_json(silent=True), r.is_json],
    "form": lambda r: [r.form.to_dict(flat=False), r.values.to_dict(flat=False), type(r.form).__name__],
    "files": files,
    "picture": picture,
    "cookies": lambda r: r.cookies.to_dict(flat=False),
    "read": lambda r: [
        r.stream.read(3).decode("latin-1"),
        r.stream.read().decode("latin-1"),
        r.stream.read().decode("latin-1"),
    ],
    "readline": lambda r: [r.stream.readline().decode("latin-1"), r.stream.readline().decode("latin-1")],
    "lines": lines,
    "content": lambda r: [r.content_type, r.mimetype, r.mimetype_params, r.content_length, r.content_encoding],
    "remote": lambda r: [r.remote_addr, list(r.access_route), r.remote_user],
    "authorization": lambda r: (
        [r.authorization.type, r.authorization.username, r.authorization.password, r.authorization.token]
        if r.authorization
        else None
    ),
    "agent": lambda r: [
        r.user_agent.string,
        r.referrer,
        r.accept_mimetypes.best,
        list(r.accept_languages.values()),
        r.accept_encodings.best,
    ],
    "route": lambda r: [
        r.endpoint,
        r.blueprint,
        str(r.url_rule),
        r.view_args,
        r.blueprints,
        r.routing_exception is None,
    ],
    "environ": environ,
    "wsgi": wsgi,
    "setattr": set_attribute,
    "context": context,
    "ids": ids,
    "limits": change_limits,
    "conditions": lambda r: [
        r.if_none_match.to_header(),
        str(r.if_modified_since),
        str(r.range),
        r.cache_control.no_cache,
        str(r.date),
        r.pragma.to_header(),
    ],
    "response": lambda r: AMLResponse(r.method, 201, {"X-M": r.method}),
    "nothing": lambda r: None,
    "text": lambda r: "a text",
    "raise": lambda r: 1 / 0,
    "proxy": lambda r: r is flask.request,
    "after-read": lambda r: [r.stream.read().decode("latin-1"), r.data.decode("latin-1")],
    "want-form": lambda r: [r.want_form_data_parsed, r.is_multiprocess, r.is_multithread, r.is_run_once],
    "json-error": lambda r: (r.get_json(), 1),
    "bool": lambda r: [bool(r), repr(r)],
}


def init():
    pass


@rawhttp
def run(request):
    show = request.args.get("show")
    if show is None:
        return json.dumps([request.method, request.headers.get("X-A"), request.get_data().decode("latin-1")])
    return SHOW[show](request)
