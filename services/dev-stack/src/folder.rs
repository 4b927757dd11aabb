//! `DATA_DIR`: everything the stack keeps between runs, and the lock that gives it to one stack.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The folder, locked while this value lives.
pub struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes and locks it.
    ///
    /// # Errors
    /// When another stack runs on the same folder, or it cannot be written.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(root.join("logs"))
            .with_context(|| format!("making DATA_DIR {}", root.display()))?;
        let root = root
            .canonicalize()
            .with_context(|| format!("DATA_DIR {}", root.display()))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))
            .context("DATA_DIR/lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another stack runs on {}: stop it, or set DATA_DIR to another folder",
                root.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).context("locking DATA_DIR/lock"),
        }
        // What scripts wait for: not before all is ready again.
        let _ = fs::remove_file(root.join("stack.json"));
        Ok(Self { root, _lock: lock })
    }

    /// A file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads `name`, or makes it with `new` first: for what is chosen once and kept.
    pub fn keep(&self, name: &str, new: impl FnOnce() -> String) -> anyhow::Result<String> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = new();
                self.write(name, &text)?;
                Ok(text)
            }
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Replaces `name` at once: a reader sees the old text or the new one, never a half.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        let draft = path.with_extension("new");
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_stack_on_the_same_folder_is_refused_with_the_way_out() {
        let root = tempfile::tempdir().expect("a folder");
        let first = Folder::open(root.path()).expect("the first stack");
        let refused = Folder::open(root.path()).err().expect("a refusal");
        assert!(refused.to_string().contains("set DATA_DIR"), "{refused}");
        drop(first);
        Folder::open(root.path()).expect("free again");
    }

    #[test]
    fn what_is_kept_is_made_once() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(root.path()).expect("the folder");
        assert_eq!(folder.keep("secret", || "one".into()).expect("made"), "one");
        assert_eq!(folder.keep("secret", || "two".into()).expect("read"), "one");
    }
}
