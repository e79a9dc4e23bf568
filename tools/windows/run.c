// run.exe PROGRAM ARGUMENTS: starts a program with this standard output and error, and ends with its exit code.
//
// Each letter on standard input is an event of the console, which the program gets as Windows sends it: in a thread of
// its own, which runs CtrlRoutine. Wine has no other way to send it Ctrl-Break. The end of standard input ends the
// program. The file that RUN_PID names gets the program's process id. tests/windows_command.py starts every server of the
// tests with it.

#include <stdio.h>
#include <windows.h>

static HANDLE child;

static DWORD event_of(char letter) {
    switch (letter) {
        case 'c': return CTRL_C_EVENT;
        case 'b': return CTRL_BREAK_EVENT;
        case 'w': return CTRL_CLOSE_EVENT;
        default: return CTRL_SHUTDOWN_EVENT;
    }
}

static void deliver(DWORD event) {
    FARPROC routine = GetProcAddress(GetModuleHandleA("kernelbase.dll"), "CtrlRoutine");
    HANDLE thread =
        CreateRemoteThread(child, NULL, 0, (LPTHREAD_START_ROUTINE)(void *)routine, (void *)(ULONG_PTR)event, 0, NULL);
    if (thread) {
        CloseHandle(thread);
    } else {
        fprintf(stderr, "run.exe: the event %lu was not sent: error %lu\n", event, GetLastError());
    }
}

static DWORD WINAPI obey(void *unused) {
    (void)unused;
    char letter;
    DWORD length;
    while (ReadFile(GetStdHandle(STD_INPUT_HANDLE), &letter, 1, &length, NULL) && length == 1) deliver(event_of(letter));
    TerminateProcess(child, 1);
    return 0;
}

// Write the program's process id into the file that RUN_PID names.
static void tell(DWORD pid) {
    wchar_t path[MAX_PATH];
    if (!GetEnvironmentVariableW(L"RUN_PID", path, MAX_PATH)) return;
    FILE *file = _wfopen(path, L"w");
    if (file) {
        fprintf(file, "%lu\n", pid);
        fclose(file);
    } else {
        fprintf(stderr, "run.exe: %ls cannot be written\n", path);
    }
}

// The command line without our own name.
static wchar_t *command(void) {
    wchar_t *rest = GetCommandLineW();
    BOOL is_quoted = FALSE;
    for (; *rest && (is_quoted || *rest != L' '); rest++) {
        if (*rest == L'"') is_quoted = !is_quoted;
    }
    while (*rest == L' ') rest++;
    return rest;
}

int wmain(void) {
    SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
    STARTUPINFOW start = {.cb = sizeof start, .dwFlags = STARTF_USESTDHANDLES};
    start.hStdInput =
        CreateFileW(L"NUL", GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, &inherited, OPEN_EXISTING, 0, NULL);
    start.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    start.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    // Wine sets TEMP itself. A test has a folder of its own for temporary files; an empty text means none.
    wchar_t temporary[MAX_PATH] = L"";
    SetLastError(ERROR_SUCCESS);
    if (GetEnvironmentVariableW(L"RUN_TEMP", temporary, MAX_PATH) || GetLastError() == ERROR_SUCCESS) {
        SetEnvironmentVariableW(L"TEMP", *temporary ? temporary : NULL);
        SetEnvironmentVariableW(L"TMP", *temporary ? temporary : NULL);
        SetEnvironmentVariableW(L"RUN_TEMP", NULL);
    }
    PROCESS_INFORMATION started;
    if (!CreateProcessW(NULL, command(), NULL, NULL, TRUE, 0, NULL, NULL, &start, &started)) {
        fprintf(stderr, "run.exe: %ls was not started: error %lu\n", command(), GetLastError());
        return 127;
    }
    child = started.hProcess;
    tell(started.dwProcessId);
    if (!CreateThread(NULL, 0, obey, NULL, 0, NULL)) fprintf(stderr, "run.exe: nothing reads standard input\n");
    DWORD code = 1;
    WaitForSingleObject(child, INFINITE);
    GetExitCodeProcess(child, &code);
    return (int)code;
}
