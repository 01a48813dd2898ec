//! The migrations are compiled in; cargo has to know that they are sources.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
