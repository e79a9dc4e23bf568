//! The priority of threads whose work can wait.

/// How much nicer the calling thread becomes to all others.
#[cfg(target_os = "linux")]
const MORE_NICE: i32 = 5;

/// Lets all other threads go first, above all the front's event loop. On Linux each thread has a priority of its own.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn lower() {
    // SAFETY: the call takes a number and changes only the calling thread's priority (nice(2), notes). It cannot be refused,
    // because anybody may become nicer.
    let _ = unsafe { nix::libc::nice(MORE_NICE) };
}

/// Other systems have one priority for all threads of a process.
#[cfg(not(target_os = "linux"))]
pub fn lower() {}
