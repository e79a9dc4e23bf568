// Makes the program into which tools/free_threaded_python.py preloads this library a command `python`. That program has
// all of CPython but its main(), so __libc_start_main() gets another one here.
//
// PEP 741 has the functions, which need no header of CPython.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct PyInitConfig PyInitConfig;
PyInitConfig *PyInitConfig_Create(void);
int PyInitConfig_SetInt(PyInitConfig *, const char *, long long);
int PyInitConfig_SetStr(PyInitConfig *, const char *, const char *);
int PyInitConfig_SetStrList(PyInitConfig *, const char *, size_t, char *const *);
int PyInitConfig_GetError(PyInitConfig *, const char **);
int PyInitConfig_GetExitCode(PyInitConfig *, int *);
int Py_InitializeFromInitConfig(PyInitConfig *);
int PyRun_SimpleStringFlags(const char *, void *);
int Py_FinalizeEx(void);

// Runs what the command line names: -c CODE, -m MODULE, a file, or standard input.
static const char *RUN =
    "def _run():\n"
    "    import os, runpy, sys\n"
    "    rest = sys.orig_argv[len(sys.orig_argv) - len(sys.argv):] if sys.argv[0] else []\n"
    "    kind = sys.argv[0]\n"
    "    if not sys.flags.safe_path:\n"
    "        beside = os.getcwd() if kind == '-m' else os.path.dirname(os.path.realpath(kind)) if rest and kind != '-c' else ''\n"
    "        sys.path.insert(0, beside)\n"
    "    if kind == '-m':\n"
    "        runpy._run_module_as_main(rest[0])\n"
    "        return\n"
    "    names = sys.modules['__main__'].__dict__\n"
    "    names.pop('_run', None)\n"
    "    if kind == '-c':\n"
    "        code, file = rest[0], '<string>'\n"
    "    elif rest and kind != '-':\n"
    "        file = names['__file__'] = kind\n"
    "        with open(file, 'rb') as script: code = script.read()\n"
    "    else:\n"
    "        code, file = sys.stdin.read(), '<stdin>'\n"
    "    exec(compile(code, file, 'exec', dont_inherit=True), names)\n"
    "_run()\n";

static int fail(PyInitConfig *config) {
    int code;
    const char *why;
    if (PyInitConfig_GetExitCode(config, &code)) return code;
    if (PyInitConfig_GetError(config, &why)) fprintf(stderr, "python: %s\n", why);
    return 1;
}

static int run(int argc, char **argv, char **variables) {
    (void)variables;
    // What this process starts gets no library of ours.
    unsetenv("LD_PRELOAD");
    // The script that starts this program says by what name it was called. Python wants an absolute one.
    static char name[2 * PATH_MAX], folder[PATH_MAX];
    const char *called = getenv("START_PYTHON");
    if (!called) called = argv[0];
    if (*called == '/' || !getcwd(folder, sizeof folder)) *folder = 0;
    snprintf(name, sizeof name, "%s%s%s", folder, *folder ? "/" : "", called);
    argv[0] = name;
    PyInitConfig *config = PyInitConfig_Create();
    if (!config) return 1;
    static const char *const on[] = {"use_environment", "parse_argv",  "user_site_directory", "install_signal_handlers",
                                     "pathconfig_warnings", "configure_c_stdio", "configure_locale", "coerce_c_locale"};
    for (size_t index = 0; index < sizeof on / sizeof *on; index++) {
        if (PyInitConfig_SetInt(config, on[index], 1)) return fail(config);
    }
    if (PyInitConfig_SetInt(config, "isolated", 0) || PyInitConfig_SetInt(config, "safe_path", 0) ||
        PyInitConfig_SetStr(config, "executable", argv[0]) || PyInitConfig_SetStr(config, "program_name", argv[0]) ||
        PyInitConfig_SetStrList(config, "argv", (size_t)argc, argv)) {
        return fail(config);
    }
    unsetenv("START_PYTHON");
    if (Py_InitializeFromInitConfig(config)) return fail(config);
    int failed = PyRun_SimpleStringFlags(RUN, NULL);
    return Py_FinalizeEx() < 0 ? 120 : failed ? 1 : 0;
}

typedef int main_function(int, char **, char **);
typedef int start_function(main_function *, int, char **, main_function *, void (*)(void), void (*)(void), void *);

int __libc_start_main(main_function *theirs, int argc, char **argv, main_function *init, void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end) {
    (void)theirs;
    start_function *start = (start_function *)dlsym(RTLD_NEXT, "__libc_start_main");
    return start(run, argc, argv, init, fini, rtld_fini, stack_end);
}
