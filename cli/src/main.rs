mod dev;
fn main() {}
