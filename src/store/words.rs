//! What a store's errors mean to whoever has set it up.

use std::error::Error as StdError;

use object_store::Error as StoreError;

use crate::error::{Error, ErrorKind};

/// What is known of the store, for the sentences.
#[derive(Debug, Clone)]
pub(super) struct Words {
    pub(super) bucket: String,
    /// The URL, or whose it is.
    pub(super) endpoint: String,
}

impl Words {
    /// The error as a sentence that says what to do; the store's own text is its cause.
    pub(super) fn of(&self, error: &StoreError) -> Error {
        let (bucket, endpoint) = (&self.bucket, &self.endpoint);
        let text = chain(error);
        let code = element(&text, "Code");
        let (kind, said) = match (code, error) {
            (Some("NoSuchBucket"), _) => (
                ErrorKind::NotFound,
                format!("there is no bucket {bucket} at {endpoint}: check the name, and model_store.endpoint"),
            ),
            (Some("InvalidAccessKeyId"), _) => {
                let said = format!(
                    "{endpoint} does not know the access key with which the bucket {bucket} is asked for: check AWS_ACCESS_KEY_ID"
                );
                (ErrorKind::PermissionDenied, said)
            }
            (Some("SignatureDoesNotMatch"), _) => (
                ErrorKind::PermissionDenied,
                format!(
                    "{endpoint} does not take the secret key with which the bucket {bucket} is asked for: check AWS_SECRET_ACCESS_KEY"
                ),
            ),
            (Some("ExpiredToken" | "InvalidToken"), _) => (
                ErrorKind::PermissionDenied,
                format!(
                    "{endpoint} does not take the session token with which the bucket {bucket} is asked for: check AWS_SESSION_TOKEN, \
                     which may have expired"
                ),
            ),
            (Some("RequestTimeTooSkewed"), _) => {
                (ErrorKind::PermissionDenied, format!("this machine's clock and that of {endpoint} differ too much"))
            }
            (Some("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException"), _) => (
                ErrorKind::InvalidArgument,
                format!("the bucket {bucket} is in another region: set model_store.region"),
            ),
            _ if text.contains("incorrectly configured region") => (
                ErrorKind::InvalidArgument,
                format!("the bucket {bucket} is in another region: set model_store.region"),
            ),
            // Before what is denied: there, it is not the bucket that denies it.
            _ if is_about_credentials(&text) => (
                ErrorKind::PermissionDenied,
                format!(
                    "no credentials were found for {endpoint}: not in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), not by a \
                     web identity (AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN) or a container's role, and the machine gives none by \
                     its metadata service; for a public bucket set model_store.anonymous"
                ),
            ),
            _ if is_denied(error, &text) => (
                ErrorKind::PermissionDenied,
                format!(
                    "{endpoint} denies access to the bucket {bucket}: check the credentials, which need s3:ListBucket on it and \
                     s3:GetObject on its objects"
                ),
            ),
            _ if text.contains("invalid peer certificate") => (
                ErrorKind::Unavailable,
                format!(
                    "the certificate of {endpoint} is not trusted: SSL_CERT_FILE can name the authorities to trust"
                ),
            ),
            (_, StoreError::NotFound { path, .. }) => {
                (ErrorKind::NotFound, format!("there is no {path} in the bucket {bucket} at {endpoint}"))
            }
            (_, StoreError::InvalidPath { .. }) => {
                (ErrorKind::InvalidArgument, format!("a key in the bucket {bucket} is no path of a file"))
            }
            _ => (ErrorKind::Unavailable, format!("the model store {endpoint} cannot be reached or does not answer")),
        };
        Error::new(kind, said).with_source(brief(&text))
    }
}

/// The text of the XML element called `name` in `text`.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, behind) = text.split_once(&format!("<{name}>"))?;
    Some(behind.split_once(&format!("</{name}>"))?.0)
}

/// `text` with what its document says, XML or a proxy's HTML, in place of the document.
fn brief(text: &str) -> String {
    let Some((before, _)) = text.split_once('<') else { return text.to_owned() };
    let said = [Some(before.trim_end().trim_end_matches(':')), element(text, "Code"), element(text, "Message")];
    let said: Vec<_> = said.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    said.join(": ")
}

/// Whether the store has refused. Only for objects does `object_store` say so by an error of its own.
fn is_denied(error: &StoreError, text: &str) -> bool {
    matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. })
        || ["403 Forbidden", "401 Unauthorized"].iter().any(|status| text.contains(status))
}

/// Whether it is the instance's metadata service, the last place for credentials, that did not answer or has none.
fn is_about_credentials(text: &str) -> bool {
    ["169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "/latest/api/token"]
        .iter()
        .any(|place| text.contains(place))
}

/// An error and its causes, each that the one before it does not say already.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: &StoreError) -> Error {
        Words { bucket: "models".into(), endpoint: "http://store".into() }.of(error)
    }

    fn generic(text: &str) -> StoreError {
        StoreError::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn errors_say_what_to_do() {
        for (text, kind, said) in [
            ("404: <Error><Code>NoSuchBucket</Code></Error>", ErrorKind::NotFound, "no bucket models at http://store"),
            ("<Code>InvalidAccessKeyId</Code>", ErrorKind::PermissionDenied, "AWS_ACCESS_KEY_ID"),
            ("<Code>SignatureDoesNotMatch</Code>", ErrorKind::PermissionDenied, "AWS_SECRET_ACCESS_KEY"),
            ("<Code>PermanentRedirect</Code>", ErrorKind::InvalidArgument, "model_store.region"),
            ("PUT http://169.254.169.254/latest/api/token", ErrorKind::PermissionDenied, "model_store.anonymous"),
            (
                "PUT http://169.254.169.254/latest/api/token: 403 Forbidden",
                ErrorKind::PermissionDenied,
                "no credentials were found",
            ),
            ("403 Forbidden: <Code>AccessDenied</Code>", ErrorKind::PermissionDenied, "s3:ListBucket"),
            ("invalid peer certificate: UnknownIssuer", ErrorKind::Unavailable, "SSL_CERT_FILE"),
            ("connection refused", ErrorKind::Unavailable, "cannot be reached"),
        ] {
            let error = of(&generic(text));
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.message().contains(said) && error.chain().contains(&brief(text)), "{}", error.chain());
        }
        let xml = "GET http://store/models: 404 Not Found: <?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>The \
                   bucket does not exist</Message></Error>";
        let chain = of(&generic(xml)).chain();
        assert!(chain.ends_with("404 Not Found: NoSuchBucket: The bucket does not exist"), "{chain}");
        assert_eq!(brief("502: <html><body>no</body></html>"), "502");
        let denied = of(&StoreError::PermissionDenied { path: "m".into(), source: "403".into() });
        assert!(denied.message().contains("s3:ListBucket"), "{denied}");
    }
}
