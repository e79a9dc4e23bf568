// bcryptprimitives.dll with the one function that Rust's standard library needs from it. Windows has it since Windows 7,
// Wine since 9.0; an older Wine has its predecessor RtlGenRandom only.

#include <windows.h>
#include <ntsecapi.h>

// The largest number that RtlGenRandom takes.
#define MOST 0x10000000

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T count) {
    while (count) {
        ULONG piece = count > MOST ? MOST : (ULONG)count;
        if (!RtlGenRandom(bytes, piece)) return FALSE;
        bytes += piece;
        count -= piece;
    }
    return TRUE;
}
