//! What the compose file says of a database, by the name of its image.

/// An image that init knows, by the last part of its repository's name.
struct Known {
    name: &'static str,
    /// What the image demands.
    environment: Option<(&'static str, &'static str)>,
    /// The health check's command. It asks by network where it can: while an image sets its database
    /// up, it runs a server that listens on a socket alone.
    test: &'static str,
}

const KNOWN: [Known; 6] = [
    Known {
        name: "postgres",
        environment: Some(("POSTGRES_PASSWORD", "test")),
        test: r#"["CMD", "pg_isready", "-h", "127.0.0.1", "-U", "postgres"]"#,
    },
    Known {
        name: "mysql",
        environment: Some(("MYSQL_ROOT_PASSWORD", "test")),
        test: r#"["CMD", "mysqladmin", "ping", "-h", "127.0.0.1", "-ptest"]"#,
    },
    Known {
        name: "mariadb",
        environment: Some(("MARIADB_ROOT_PASSWORD", "test")),
        test: r#"["CMD", "healthcheck.sh", "--connect", "--innodb_initialized"]"#,
    },
    Known {
        name: "redis",
        environment: None,
        test: r#"["CMD", "redis-cli", "ping"]"#,
    },
    Known {
        name: "valkey",
        environment: None,
        test: r#"["CMD", "valkey-cli", "ping"]"#,
    },
    Known {
        name: "mongo",
        environment: None,
        test: r#"["CMD", "mongosh", "--quiet", "--eval", "db.adminCommand('ping')"]"#,
    },
];

fn known(image: &str) -> Option<&'static Known> {
    let last = image.rsplit('/').next()?;
    let name = last.split([':', '@']).next()?;
    KNOWN.iter().find(|known| known.name == name)
}

/// Whether the compose file needs no more.
pub fn is_known(image: &str) -> bool {
    known(image).is_some()
}

/// Lines of the compose file's `environment`; perhaps none.
pub fn environment(image: &str) -> String {
    match known(image).and_then(|known| known.environment) {
        Some((name, value)) => format!("      {name}: {value}\n"),
        None => String::new(),
    }
}

/// Lines of the compose file.
pub fn healthcheck(image: &str) -> String {
    const UNKNOWN: &str =
        "      # Replace it by a command that succeeds once the database accepts connections.\n";
    match known(image) {
        Some(known) => format!("      test: {}\n", known.test),
        None => format!("{UNKNOWN}      test: [\"CMD\", \"true\"]\n"),
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
