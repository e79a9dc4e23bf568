//! Rooms are used again, bodies arrive whole, and a worker can only read.

use super::*;

const MIB: usize = 1 << 20;

fn arena(largest: usize) -> Arena {
    Arena::new(largest).expect("a file in memory")
}

/// A body of `length` times this byte.
fn body(arena: &Arena, byte: u8, length: usize) -> Extent {
    let mut filling = arena.begin(length).expect("room");
    for part in vec![byte; length].chunks(100_000) {
        filling.push(part).expect("memory");
    }
    filling.finish()
}

fn worker(arena: &Arena) -> SharedFile {
    SharedFile::new(arena.file().try_clone_to_owned().expect("another descriptor")).expect("a file")
}

fn read(worker: &mut SharedFile, place: Place) -> io::Result<Vec<u8>> {
    let mut target = Vec::with_capacity(usize::try_from(place.length).expect("a length"));
    worker.read(place, target.spare_capacity_mut())?;
    // SAFETY: all of it has just been read.
    unsafe { target.set_len(target.capacity()) };
    Ok(target)
}

/// Bytes of memory that the file takes.
fn resident(arena: &Arena) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    arena.0.file.metadata().expect("metadata").blocks() * 512
}

#[test]
fn a_worker_reads_what_has_come() {
    let arena = arena(10 * MIB);
    let mut worker = worker(&arena);
    let (one, two) = (body(&arena, 1, 3 * MIB + 5), body(&arena, 2, 10 * MIB));
    assert!(read(&mut worker, one.place()).expect("a body") == vec![1; 3 * MIB + 5]);
    assert!(read(&mut worker, two.place()).expect("a body") == vec![2; 10 * MIB]);
    assert!(two.to_vec().expect("a body") == vec![2; 10 * MIB]);
}

#[test]
fn bodies_arrive_whole_beyond_what_is_mapped() {
    let arena = arena(3 * MAPPED);
    let mut worker = worker(&arena);
    let length = 2 * MAPPED + 12_345;
    let bytes: Vec<u8> = (0..length).map(|at| (at / 1000 % 256) as u8).collect();
    let mut filling = arena.begin(length).expect("room");
    // Parts that end just before, at and after the border as well.
    let (start, rest) = bytes.split_at(MAPPED - 70_000);
    for part in [start, &rest[..69_999], &rest[69_999..70_000], &rest[70_000..70_001], &rest[70_001..]] {
        filling.push(part).expect("memory");
    }
    let body = filling.finish();
    assert!(body.to_vec().expect("a body") == bytes);
    for _ in 0..2 {
        assert!(read(&mut worker, body.place()).expect("a body") == bytes);
    }
}

#[test]
fn announcing_a_body_costs_few_addresses() {
    // Three of these would be more than a process has.
    let arena = arena(1 << 46);
    let bodies: Vec<_> = (0..10).map(|_| arena.begin(1 << 46).expect("room")).collect();
    assert_eq!(bodies.len(), 10);
    assert_eq!(resident(&arena), 0);
}

#[test]
fn rooms_are_used_again_and_only_when_they_are_free() {
    let arena = arena(4 * MIB);
    let (one, two) = (body(&arena, 1, 2 * MIB), body(&arena, 2, 2 * MIB));
    let (first, second) = (one.place(), two.place());
    assert_ne!(first, second);
    drop(one);
    let longer = body(&arena, 3, 4 * MIB);
    assert_eq!(longer.place().offset, first.offset);
    assert!(two.to_vec().expect("a body") == vec![2; 2 * MIB]);
    assert!(longer.to_vec().expect("a body") == vec![3; 4 * MIB]);
    drop((longer, two));
    assert_eq!(body(&arena, 4, MIB).place().offset, second.offset);
}

#[test]
fn memory_is_taken_as_it_comes_and_given_back() {
    let arena = arena(64 * MIB);
    let mut filling = arena.begin(64 * MIB).expect("room");
    filling.push(&[1; 1000]).expect("memory");
    assert!(resident(&arena) <= 2 * STEPS.0 as u64, "{}", resident(&arena));
    drop(filling);
    drop(body(&arena, 1, 5 * MIB));
    assert!(resident(&arena) >= 5 * MIB as u64, "kept for the next");
    arena.give_back();
    assert_eq!(resident(&arena), 0);
}

#[test]
fn free_rooms_keep_so_much_and_no_more() {
    let arena = arena(16 * MIB);
    let bodies: Vec<_> = (0..6).map(|byte| body(&arena, byte, 16 * MIB)).collect();
    assert!(resident(&arena) >= 96 * MIB as u64);
    drop(bodies);
    assert!(resident(&arena) <= KEPT_FREE as u64, "{}", resident(&arena));
}

#[test]
fn a_body_is_as_long_as_announced_at_most() {
    let arena = arena(4 * MIB);
    assert!(arena.begin(4 * MIB + 1).is_err());
    let mut filling = arena.begin(10).expect("room");
    filling.push(b"12345").expect("memory");
    assert!(filling.push(b"678901").is_err());
    assert_eq!(filling.to_vec().expect("a body"), b"12345");
    assert_eq!(filling.finish().place().length, 5);
    assert!(Arena::new(usize::MAX).is_err());
}

#[test]
fn places_outside_and_files_that_are_others_are_refused() {
    let arena = arena(MIB);
    let mut worker = worker(&arena);
    let place = body(&arena, 1, MIB).place();
    assert!(read(&mut worker, Place { offset: place.offset + (1 << 30), ..place }).is_err());
    assert!(read(&mut worker, Place { offset: u64::MAX, ..place }).is_err());
    assert!(worker.read(place, &mut []).is_err());
    assert_eq!(read(&mut worker, Place { length: 0, ..place }).expect("nothing"), Vec::<u8>::new());
    worker.file = File::open("/dev/null").expect("a device");
    assert!(read(&mut worker, place).is_err());
}

#[test]
fn a_script_cannot_make_the_file_shorter() {
    let arena = arena(MIB);
    let one = body(&arena, 1, MIB);
    let worker = worker(&arena);
    let path = format!("/proc/self/fd/{}", worker.file.as_raw_fd());
    let again = File::options().write(true).open(path).expect("scripts run as the same user");
    assert_eq!(again.set_len(0).expect_err("sealed").kind(), io::ErrorKind::PermissionDenied);
    assert!(one.to_vec().expect("a body") == vec![1; MIB]);
}

#[test]
fn workers_cannot_write() {
    let arena = arena(MIB);
    let worker = worker(&arena);
    let _keep = body(&arena, 1, MIB);
    assert!(Mapping::new(&worker.file, 0, MIB, Access::Write).is_err());
}
