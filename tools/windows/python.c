// python.exe: what an installed CPython has, and the package that tools/windows_python.py takes its libraries from has not.

#include <wchar.h>

__declspec(dllimport) int Py_Main(int, wchar_t **);

int wmain(int argc, wchar_t **argv) { return Py_Main(argc, argv); }
