//! Which database a test runs on: a file in its folder, or with `HELIX_TEST_STORE=postgres` a database of its own in a
//! PostgreSQL that the tests of one process share.

use std::path::Path;

#[expect(
    dead_code,
    unreachable_pub,
    reason = "one file, which the system tests use in full"
)]
#[path = "../../../tests/src/postgres.rs"]
pub(crate) mod postgres;

/// Names the database, as a config would.
const VARIABLE: &str = "HELIX_TEST_STORE";

/// The database that belongs to a folder: the same one each time it is asked for.
#[expect(clippy::panic, reason = "a test may stop here")]
pub(crate) fn of(folder: &Path) -> String {
    match std::env::var(VARIABLE).as_deref() {
        Err(_) | Ok("sqlite") => folder.join("origin.db").display().to_string(),
        Ok("postgres") => {
            let noted = folder.join("database");
            std::fs::read_to_string(&noted).unwrap_or_else(|_| {
                let server = server().expect("HELIX_TEST_STORE says that it is there");
                let url = server.database();
                std::fs::write(&noted, &url).expect("a note");
                url
            })
        }
        Ok(other) => panic!("{VARIABLE}={other}: say sqlite or postgres"),
    }
}

/// A PostgreSQL, where one is installed.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn server() -> Option<&'static postgres::Postgres> {
    let server = postgres::Postgres::shared();
    if server.is_none() {
        eprintln!("skipped on PostgreSQL, which is not installed: `apt install postgresql`");
    }
    server
}
