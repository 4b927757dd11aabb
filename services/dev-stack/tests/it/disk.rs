//! A disk whose power can be cut: an ext4 image on a loop device. What nobody flushed to it is not
//! on it afterwards, however long the kernel remembers it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SIZE: u64 = 512 * 1024 * 1024;

/// A mounted image. Dropping it unmounts it.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// A new disk, mounted at `folder/name`; `None` where that cannot be done: it takes root,
    /// mkfs.ext4 and a loop device.
    pub fn mount(folder: &Path, name: &str) -> Option<Self> {
        let image = folder.join(format!("{name}.img"));
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(SIZE))
            .ok()?;
        tried("mkfs.ext4", &["-qF", image.to_str()?])?;
        let mount = folder.join(name);
        std::fs::create_dir(&mount).ok()?;
        let disk = Self { image, mount };
        disk.attach()?;
        Some(disk)
    }

    /// Flushes all that is on it.
    pub fn flush(&self) {
        let mount = self.mount.to_str().expect("text");
        assert!(tried("sync", &["-f", mount]).is_some(), "sync");
    }

    /// Cuts the power and puts it on again. Nothing may have a file of it open.
    pub fn cut_the_power(&mut self) {
        let after = self.image.with_extension("after");
        let paths = [&self.image, &after].map(|path| path.to_str().expect("text"));
        let copied = tried("cp", &["--sparse=always", paths[0], paths[1]]);
        assert!(copied.is_some(), "a copy of the image");
        let mount = self.mount.to_str().expect("text");
        assert!(tried("umount", &[mount]).is_some(), "a file is still open");
        self.image = after;
        assert!(self.attach().is_some(), "the image is not to be mounted");
    }

    fn attach(&self) -> Option<()> {
        // The journal commits by itself after five seconds, which would spoil the control.
        let (image, mount) = (self.image.to_str()?, self.mount.to_str()?);
        tried("mount", &["-o", "loop,commit=300", image, mount])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}

/// Runs a program to its end; `None` when it is missing or says no.
pub fn tried(program: &str, arguments: &[&str]) -> Option<()> {
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.ok().filter(|status| status.success()).map(drop)
}
