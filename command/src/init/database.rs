//! What the compose file says of a database, by the name of its image.

/// Repository names' last parts, the environment that the image demands, and the health check's
/// command. It must ask by network: the images' set-up runs a server that listens on a socket alone.
const KNOWN: &[(&str, &[(&str, &str)], &str)] = &[
    (
        "postgres",
        &[("POSTGRES_PASSWORD", "test")],
        r#"["CMD", "pg_isready", "-h", "127.0.0.1", "-U", "postgres"]"#,
    ),
    (
        "mysql",
        &[("MYSQL_ROOT_PASSWORD", "test")],
        r#"["CMD", "mysqladmin", "ping", "-h", "127.0.0.1", "-ptest"]"#,
    ),
    (
        "mariadb",
        &[("MARIADB_ROOT_PASSWORD", "test")],
        r#"["CMD", "healthcheck.sh", "--connect", "--innodb_initialized"]"#,
    ),
    ("redis", &[], r#"["CMD", "redis-cli", "ping"]"#),
    ("valkey", &[], r#"["CMD", "valkey-cli", "ping"]"#),
    (
        "mongo",
        &[],
        r#"["CMD", "mongosh", "--quiet", "--eval", "db.adminCommand('ping')"]"#,
    ),
];

fn known(image: &str) -> Option<(&'static [(&'static str, &'static str)], &'static str)> {
    let last = image.rsplit('/').next()?;
    let name = last.split([':', '@']).next()?;
    let found = KNOWN.iter().find(|(known, ..)| *known == name)?;
    Some((found.1, found.2))
}

/// Whether the compose file needs no more.
pub fn is_known(image: &str) -> bool {
    known(image).is_some()
}

/// Lines of the compose file; perhaps none.
pub fn environment(image: &str) -> String {
    let variables = known(image).map_or(&[][..], |(variables, _)| variables);
    let lines = variables
        .iter()
        .map(|(name, value)| format!("      {name}: {value}\n"));
    match variables {
        [] => String::new(),
        _ => format!("    environment:\n{}", lines.collect::<String>()),
    }
}

/// Lines of the compose file.
pub fn healthcheck(image: &str) -> String {
    match known(image) {
        Some((_, test)) => format!("      test: {test}\n"),
        None => {
            "      # Replace it by a command that succeeds once the database accepts connections.\n\
                 \x20     test: [\"CMD\", \"true\"]\n"
                .to_owned()
        }
    }
}

/// Whether this is the full name of one image. Without a tag it would be another one every day.
pub fn check_image(image: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let shown = image.escape_default();
    if !image.starts_with(|first: char| first.is_ascii_alphanumeric())
        || !image.bytes().all(allowed)
    {
        return Err(format!(
            "\"{shown}\" is not the name of an image, like postgres:17.6"
        ));
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    let tag = last.split_once([':', '@']);
    match tag {
        Some((name, "latest")) => Err(format!(
            "\"{shown}\": latest is another image every day; name a version, like {name}:1.0"
        )),
        Some((name, tag)) if !name.is_empty() && !tag.is_empty() => Ok(()),
        _ => Err(format!(
            "\"{shown}\" has no tag; name a version, like postgres:17.6"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_version() {
        for image in [
            "postgres:17.6",
            "localhost:5000/team/my-db:1",
            "docker.io/library/mariadb@sha256:abc",
        ] {
            assert_eq!(check_image(image), Ok(()));
        }
        for image in [
            "",
            "postgres",
            "postgres:",
            "postgres:latest",
            "localhost:5000/postgres",
            "a b:1",
            "$DB:1",
            "${DB}:1",
            "a:1\n",
            "-a:1",
            ":1",
            "a\"b:1",
        ] {
            assert!(check_image(image).is_err(), "{image}");
        }
    }

    #[test]
    fn known_by_name_alone() {
        assert!(is_known("postgres:17"));
        assert!(is_known("registry:5000/library/mariadb@sha256:abc"));
        assert!(!is_known("my-postgres:17"));
        assert!(!is_known("postgres/thing:17"));
    }
}
