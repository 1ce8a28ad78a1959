//! Many at once, and many in one folder.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt, sync::Barrier, time::Instant};

use signer_core::{Backend, ErrorKind, KeyType, ListRequest};
use signer_software::load_or_create_passphrase;
use support::{Place, delete, generate, kind, list, now, open_key, rotate, try_to_sign, works};

mod support;

#[test]
fn of_many_that_make_a_key_of_one_name_one_wins() {
    let place = Place::new();
    // As many processes would: half of the threads through a backend of their own.
    let others: Vec<_> = (0..8).map(|_| place.started_again()).collect();
    for round in 0..5 {
        let name = format!("k{round}");
        let barrier = Barrier::new(16);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|at| {
                    let backend = others.get(at).unwrap_or(&place.backend);
                    let (name, barrier) = (&name, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        generate(backend, name, KeyType::EcdsaP256)
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let winners: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().ok()).collect();
        assert_eq!(winners.len(), 1);
        for error in outcomes.iter().filter_map(|o| o.as_ref().err()) {
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        }
        for backend in others.iter().chain([&place.backend]) {
            assert_eq!(open_key(backend, &name).unwrap().info().public_key, winners[0].public_key);
            works(backend, &name);
        }
    }
}

#[test]
fn of_many_that_rotate_each_gets_a_version_of_its_own() {
    let place = Place::new();
    generate(&place.backend, "k", KeyType::Ed25519).unwrap();
    let other = place.started_again();
    let made: BTreeSet<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|at| {
                let backend = if at % 2 == 0 { &other } else { &place.backend };
                scope.spawn(move || rotate(backend, "k").unwrap().name.to_string())
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(made, (2..=9).map(|v| format!("k@{v}")).collect());
    assert_eq!(list(&place.backend).len(), 9);
    assert_eq!(open_key(&place.backend, "k").unwrap().info().name.to_string(), "k@9");
    for version in 1..=9 {
        works(&other, &format!("k@{version}"));
    }
}

#[test]
fn the_number_of_a_deleted_version_is_not_given_again() {
    let place = Place::new();
    generate(&place.backend, "k", KeyType::Ed25519).unwrap();
    rotate(&place.backend, "k").unwrap();
    let second = open_key(&place.backend, "k@2").unwrap();
    delete(&place.backend, "k@2").unwrap();
    assert_eq!(kind(try_to_sign(&*second)), ErrorKind::NotFound);
    assert_eq!(open_key(&place.backend, "k").unwrap().info().name.to_string(), "k@1");
    assert_eq!(rotate(&place.backend, "k").unwrap().name.to_string(), "k@3");
    delete(&place.backend, "k@1").unwrap();
    delete(&place.backend, "k@3").unwrap();
    assert_eq!(kind(open_key(&place.backend, "k")), ErrorKind::NotFound);
    assert!(!place.directory().join("k").exists());
}

#[test]
fn a_thousand_keys_are_listed_and_opened_quickly() {
    let place = Place::new();
    for at in 0..1000 {
        generate(&place.backend, &format!("key {at}"), KeyType::EcdsaP256).unwrap();
    }
    let start = Instant::now();
    let started = place.started_again();
    let opened = start.elapsed();
    let page = now(started.list(ListRequest::default())).unwrap();
    let listed = start.elapsed();
    assert_eq!((page.keys.len(), page.next), (1000, None));
    let signer = open_key(&started, "key 777").unwrap();
    let found = start.elapsed().saturating_sub(listed);
    println!("open {opened:?}, list {listed:?}, a key {found:?}");
    assert!(opened.as_millis() < 20 && listed.as_millis() < 1000 && found.as_millis() < 50);
    try_to_sign(&*signer).unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        try_to_sign(&*signer).unwrap();
    }
    assert!(start.elapsed().as_millis() < 500, "a hundred signatures took {:?}", start.elapsed());
}

#[test]
fn of_many_that_make_the_passphrase_all_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state/passphrase");
    let all: BTreeSet<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| load_or_create_passphrase(&file).unwrap().expose().to_owned()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(all.len(), 1);
    assert_eq!(all.first().unwrap().len(), 64);
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "temporary files are left");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = load_or_create_passphrase(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.advice().unwrap().contains("chmod 600"), "{error}");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(load_or_create_passphrase(&file).unwrap_err().kind(), ErrorKind::BadRequest);
}
