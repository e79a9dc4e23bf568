//! Lists the files of a project for `--reload_dir`, without those that `.gitignore` files exclude.
//!
//! The watcher process calls it (`supervise/watcher.py`), which decides what has changed. Crate
//! `ignore` has the rules of `.gitignore`: the files of all folders above count as well, and so do
//! `.git/info/exclude` and the user's own excludes.

use std::{ffi::OsString, path::Path};

use ignore::{DirEntry, WalkBuilder};

/// The paths of all files below `folder` whose changes count.
///
/// Hidden files, byte code and the temporary files of editors never count. A file that cannot be
/// read, or is gone already, is left out.
pub fn below(folder: &Path) -> Vec<OsString> {
    WalkBuilder::new(folder)
        .ignore(false)
        // `.gitignore` counts in a folder that is not in a repository, too.
        .require_git(false)
        .follow_links(true)
        .filter_entry(|entry| entry.depth() == 0 || !is_by_product(entry))
        .build()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .map(|entry| entry.into_path().into_os_string())
        .collect()
}

/// True for what Python and editors write beside the files that people edit.
fn is_by_product(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    // Vim creates the file `4913` to see if it may write to a folder.
    matches!(&*name, "__pycache__" | "4913")
        || [".pyc", "~", ".swp", ".tmp"].iter().any(|end| name.ends_with(end))
        || (name.starts_with('#') && name.ends_with('#'))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::PathBuf};

    use super::below;

    /// A folder with these files, which is removed at the end of the test.
    struct Folder(PathBuf);

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("azmlinfsrv-{}", uuid::Uuid::new_v4()));
            for (name, text) in files {
                let path = root.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }

        fn listed(&self, folder: &str) -> BTreeSet<String> {
            let relative = |path| PathBuf::from(path).strip_prefix(&self.0).unwrap().display().to_string();
            below(&self.0.join(folder)).into_iter().map(relative).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn files_that_gitignore_excludes_are_left_out() {
        let folder = Folder::with(&[
            (".gitignore", "*.log\n/out/\n!kept.log\n"),
            ("a.py", ""),
            ("a.log", ""),
            ("kept.log", ""),
            ("out/b.py", ""),
            ("package/.gitignore", "generated.py\n"),
            ("package/generated.py", ""),
            ("package/model.bin", ""),
            ("package/out/c.py", ""),
        ]);
        assert_eq!(folder.listed(""), set(&["a.py", "kept.log", "package/model.bin", "package/out/c.py"]));
    }

    #[test]
    fn the_gitignore_of_a_folder_above_counts() {
        let folder = Folder::with(&[(".gitignore", "*.log\n"), ("src/a.py", ""), ("src/a.log", "")]);
        assert_eq!(folder.listed("src"), set(&["src/a.py"]));
    }

    #[test]
    fn by_products_and_hidden_files_are_left_out() {
        let folder = Folder::with(&[
            ("a.py", ""),
            ("__pycache__/a.pyc", ""),
            (".a.py.swp", ""),
            ("a.py~", ""),
            ("#a.py#", ""),
            ("4913", ""),
            (".venv/lib.py", ""),
        ]);
        assert_eq!(folder.listed(""), set(&["a.py"]));
    }

    #[test]
    fn a_folder_that_is_missing_has_no_files() {
        let folder = Folder::with(&[("a.py", "")]);
        assert_eq!(folder.listed("missing"), set(&[]));
    }
}
