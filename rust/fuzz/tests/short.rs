//! Some thousands of inputs for every decoder: what `make fuzz` does with millions.

use aurora_fuzz::{all, input, run};

const INPUTS: u64 = 30_000;

#[test]
fn wrong_bytes_are_errors() {
    let targets = all();
    for number in 0..INPUTS {
        let input = input(&targets, 1, number, None);
        let target = &targets[input.target];
        if let Err(what) = run(target, &input.bytes) {
            panic!(
                "{}: input {number} {what}: {:02x?}",
                target.name, input.bytes
            );
        }
    }
}

/// Every decoder gets a share, slow ones too.
#[test]
fn every_decoder_is_reached() {
    let targets = all();
    for only in 0..targets.len() {
        for number in 0..40 {
            let input = input(&targets, 2, number, Some(only));
            let name = targets[only].name;
            run(&targets[only], &input.bytes)
                .unwrap_or_else(|what| panic!("{name}: {number} {what}"));
        }
        for (index, sample) in targets[only].samples.iter().enumerate() {
            let name = targets[only].name;
            run(&targets[only], sample)
                .unwrap_or_else(|what| panic!("{name}: sample {index} {what}"));
        }
    }
}

#[test]
fn the_same_number_is_the_same_input() {
    let targets = all();
    let bytes = |seed| input(&targets, seed, 77, None).bytes;
    assert_eq!(bytes(3), bytes(3));
    assert_ne!(bytes(3), bytes(4));
}

/// A decoder that believes a length is found out.
#[test]
fn memory_that_the_input_does_not_justify_is_noticed() {
    let mut target = all().remove(0);
    target.run = Box::new(|_| drop(std::hint::black_box(vec![1u8; 64 << 20])));
    let told = run(&target, b"a few bytes").expect_err("64 MiB");
    assert!(told.contains("bytes of memory"), "{told}");
}
