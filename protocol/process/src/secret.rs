//! A secret that no log and no error message shows, and the files that hold secrets.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::str::FromStr;

use subtle::ConstantTimeEq;

/// A file that holds more is not that of a secret.
const LONGEST_FILE: u64 = 64 << 10;

/// A shorter secret can be guessed: it is tried at home against what a server answers.
const SHORTEST: usize = 16;

/// A secret text. It cannot be printed by accident, and is compared in constant time.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Whether what was offered is this secret. The time that it takes tells at most the length.
    pub fn matches(&self, offered: &str) -> bool {
        self.0.as_bytes().ct_eq(offered.as_bytes()).into()
    }

    /// Whether others can guess it: too short for production, or the one of an example.
    pub fn is_weak(&self) -> bool {
        self.0.len() < SHORTEST || self.0.contains("change-me")
    }

    /// The secret itself, for handing it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    /// A blank secret would look like protection and be none: it is refused, where leaving it unset is a
    /// choice.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            Err("it must not be blank; leave it unset instead")
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The secret that a variable gives, or the file that its twin `…_FILE` names.
///
/// # Errors
/// One line that names the variable, and the file, and what is allowed. It does not show the secret.
pub fn given(variable: &str, value: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, String> {
    let twin = format!("{variable}_FILE");
    match (value, file) {
        (Some(_), Some(_)) => Err(format!("{twin}: {variable} is set as well; allowed: one of the two")),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(file)) => {
            let read = read(file).map_err(|reason| format!("{twin}: {}: {reason}", file.display()));
            read.map(Some)
        }
        (None, None) => Ok(None),
    }
}

fn read(file: &Path) -> Result<Secret, String> {
    let mut text = String::new();
    let file = File::open(file).map_err(|error| error.to_string())?;
    file.take(LONGEST_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(format!("it is too large; allowed: at most {LONGEST_FILE} bytes"));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    line.strip_suffix('\r').unwrap_or(line).parse().map_err(str::to_owned)
}

/// Makes a file with a new random secret, which only its owner can read. One that is there already stays as
/// it is. Returns whether it was made.
///
/// # Errors
/// If it cannot be written.
pub fn make_file(file: &Path) -> io::Result<bool> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_file(file, &text, false)
}

/// Makes a file with this secret, which only its owner can read, and replaces another one. Returns whether
/// there was none with this secret.
///
/// # Errors
/// If it cannot be written.
pub fn put_file(file: &Path, secret: &Secret) -> io::Result<bool> {
    match read(file) {
        Ok(same) if same.matches(secret.expose()) => Ok(false),
        _ => write_file(file, secret.expose(), true),
    }
}

/// Under another name first, so that no process reads the half of it.
fn write_file(file: &Path, secret: &str, replace: bool) -> io::Result<bool> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Its mode is 0600.
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(new, "{secret}")?;
    new.as_file().sync_all()?;
    let put = if replace { new.persist(file) } else { new.persist_noclobber(file) };
    match put {
        Ok(_) => File::open(folder)?.sync_all().map(|()| true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_in_its_variable_or_in_a_file_that_is_named_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let of = |value: Option<&str>, file| {
            let value = value.map(|text| text.parse::<Secret>().unwrap());
            given("X", value.as_ref(), file).map(|secret| secret.map(|secret| secret.expose().to_owned()))
        };
        assert_eq!(of(None, None), Ok(None));
        assert_eq!(of(Some("sesame"), None), Ok(Some("sesame".to_owned())));
        let missing = of(None, Some(&file)).unwrap_err();
        assert!(missing.starts_with(&format!("X_FILE: {}: ", file.display())), "{missing}");
        for (content, secret) in [("sesame", "sesame"), ("sesame\n", "sesame"), ("a b\r\n", "a b")] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(of(None, Some(&file)), Ok(Some(secret.to_owned())));
        }
        let both = of(Some("sesame"), Some(&file)).unwrap_err();
        assert_eq!(both, "X_FILE: X is set as well; allowed: one of the two");
        for content in [&b""[..], b"\n", b" \r\n", b"\xff\xfehush", &[b'h'; 70_000]] {
            std::fs::write(&file, content).unwrap();
            let line = of(None, Some(&file)).unwrap_err();
            assert!(line.contains(&file.display().to_string()), "{line}");
            assert!(!line.contains("hush") && !line.contains("hhh") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_secret_that_is_made_is_random_stays_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["one", "other"].map(|name| folder.path().join(name));
        let secrets = files.each_ref().map(|file| {
            assert!(make_file(file).unwrap());
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
            read(file).unwrap().expose().to_owned()
        });
        assert!(secrets[0] != secrets[1] && secrets[0].len() == 64);
        assert!(!make_file(&files[0]).unwrap());
        assert_eq!(read(&files[0]).unwrap().expose(), secrets[0]);
        let own: Secret = "sesame".parse().unwrap();
        assert!(put_file(&files[0], &own).unwrap() && !put_file(&files[0], &own).unwrap());
        assert_eq!(read(&files[0]).unwrap().expose(), "sesame");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
        assert!(make_file(&folder.path().join("no/such/folder")).is_err());
    }

    #[test]
    fn what_can_be_guessed_is_weak() {
        let weak = |text: &str| text.parse::<Secret>().unwrap().is_weak();
        assert!(weak("change-me") && weak("fifteen letters") && weak("change-me-change-me"));
        assert!(!weak("sixteen letters!"));
    }

    #[test]
    fn matches_itself_and_nothing_else() {
        let secret: Secret = "open sesame".parse().unwrap();
        assert!(secret.matches("open sesame"));
        for other in ["", "open sesam", "open sesame ", "Open sesame", "open sesamf"] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert_eq!(secret.expose(), "open sesame");
    }

    #[test]
    fn is_never_printed() {
        let secret: Secret = "open sesame".parse().unwrap();
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "*** Some(***)");
    }

    #[test]
    fn is_not_blank() {
        for blank in ["", " ", "\r\n", "\u{3000}"] {
            assert!(blank.parse::<Secret>().is_err(), "{blank:?}");
        }
    }
}
