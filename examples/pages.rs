//! Writes what packages carry beside the program: manual pages and completions for bash, zsh and fish, from the commands
//! themselves. `cargo run --no-default-features --example pages -- FOLDER` on the machine that builds, whatever it builds for.
//!
//! An example and no hidden command: the program on the gateway needs none of it, and a package for another processor can be
//! made without running that processor's program.

use std::io;
use std::path::Path;

use clap_complete::Shell;

/// Writes `man1/` and `completions/` into `folder`.
///
/// # Errors
/// What the file system says.
pub fn write(folder: &Path) -> io::Result<()> {
    let (pages, completions) = (folder.join("man1"), folder.join("completions"));
    std::fs::create_dir_all(&pages)?;
    std::fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(forebay::cli::command(), pages)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut forebay::cli::command(), "forebay", &completions)?;
    }
    Ok(())
}

#[allow(dead_code, reason = "the tests take the rest of this file for a module")]
fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("name the folder to write to"))?;
    write(Path::new(&folder))
}
