//! The migrations are embedded into the program: a changed folder must rebuild it.
fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
