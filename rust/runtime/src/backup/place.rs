//! Where a backup lies: a directory, or a bucket. Calls block; none of them is ever made on the path of a commit.
//!
//! Everything above asks [`ObjectPlace`] only, so tests put one in between that refuses, loses, tears and lies.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::Error;

/// Parts of a large object; S3 takes none below 5 MiB but the last.
const PART_BYTES: usize = 8 << 20;
/// The client tries again by itself this often, and the uploader after it for ever.
const RETRIES: usize = 2;
const RETRY_FOR: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one request: a store that is slower than this for 8 MiB is as good as none.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an object could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {detail}")]
pub struct PlaceError {
    /// What the caller can do about it.
    pub what: PlaceFault,
    /// In the store's words.
    pub detail: String,
}

/// Kinds of failures of an object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceFault {
    /// There is no object of this name.
    NotFound,
    /// There is one already.
    Exists,
    /// The bucket or directory is not there.
    NoPlace,
    /// The credentials are missing, wrong, or do not allow it.
    Denied,
    /// No room.
    Full,
    /// Whoever asked is closing.
    Stopped,
    /// Anything else: it may work later.
    Unreachable,
}

impl fmt::Display for PlaceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PlaceFault::NotFound => "no such object",
            PlaceFault::Exists => "the object is there already",
            PlaceFault::NoPlace => "no such bucket or directory",
            PlaceFault::Denied => "the credentials are missing, wrong, or do not allow it",
            PlaceFault::Full => "no space left",
            PlaceFault::Stopped => "stopped",
            PlaceFault::Unreachable => "the object store does not answer as it should",
        })
    }
}

impl PlaceError {
    /// A failure in some words.
    pub fn new(what: PlaceFault, detail: impl Into<String>) -> PlaceError {
        PlaceError {
            what,
            detail: detail.into(),
        }
    }
}

/// Gives the next piece of an object that is written piece by piece; none at its end.
pub type Pieces<'a> = dyn FnMut() -> Result<Option<Vec<u8>>, PlaceError> + 'a;

/// A flat space of named objects.
pub trait ObjectPlace: Send + Sync + fmt::Debug {
    /// Writes an object; with `create_only`, one that is there is left alone and [`PlaceFault::Exists`].
    fn put(&self, name: &str, bytes: Vec<u8>, create_only: bool) -> Result<(), PlaceError>;
    /// Writes an object that may be large. It is there entirely or not at all.
    fn put_pieces(&self, name: &str, pieces: &mut Pieces<'_>) -> Result<(), PlaceError>;
    /// The bytes of an object.
    fn get(&self, name: &str) -> Result<Vec<u8>, PlaceError>;
    /// Some bytes of an object.
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, PlaceError>;
    /// The length of an object; none where there is no such object.
    fn size(&self, name: &str) -> Result<Option<u64>, PlaceError>;
    /// Names that begin with `prefix` and a slash, ascending.
    fn list(&self, prefix: &str) -> Result<Vec<String>, PlaceError>;
    /// Removes an object; one that is not there is removed.
    fn delete(&self, name: &str) -> Result<(), PlaceError>;
    /// Ends what is under way and refuses what comes: whoever asked is closing.
    fn stop(&self) {}
}

/// An address of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Directory(PathBuf),
    Bucket {
        bucket: String,
        prefix: String,
        settings: Vec<(String, String)>,
    },
}

/// Reads `s3://bucket/prefix?endpoint=…&region=…`, `file:///directory` or a directory.
fn address(url: &str) -> Result<Address, Error> {
    let invalid = |got: &str| Error::InvalidOption {
        option: "backup",
        expected: "a directory, file:///directory, or s3://bucket/prefix".into(),
        got: format!("{got:?}"),
    };
    if let Some(rest) = url.strip_prefix("s3://") {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(invalid(url));
        }
        let mut settings = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| invalid(url))?;
            if !["endpoint", "region"].contains(&key) {
                return Err(invalid(url));
            }
            settings.push((key.into(), value.into()));
        }
        return Ok(Address::Bucket {
            bucket: bucket.into(),
            prefix: prefix.trim_matches('/').into(),
            settings,
        });
    }
    let path = url.strip_prefix("file://").unwrap_or(url);
    if path.is_empty() || path.contains("://") || path.contains('\0') {
        return Err(invalid(url));
    }
    Ok(Address::Directory(path.into()))
}

/// The directory of an address, if it is one's.
pub(crate) fn directory(url: &str) -> Option<PathBuf> {
    match address(url) {
        Ok(Address::Directory(path)) => std::path::absolute(path).ok(),
        _ => None,
    }
}

/// Whether this is the address of anything.
pub(crate) fn check_address(url: &str) -> Result<(), Error> {
    address(url).map(drop)
}

/// An object store of the crate `object_store`, with the threads it needs.
struct Remote {
    store: Box<dyn ObjectStore>,
    prefix: String,
    runtime: Runtime,
    stopped: watch::Sender<bool>,
    shown: String,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.shown)
    }
}

/// The place of this address. A directory is made where it is missing and `create` says so; nothing else is asked yet.
///
/// # Errors
/// [`Error::InvalidOption`] for an address that is none; [`Error::Backup`] where the directory cannot be used.
pub fn place(url: &str, create: bool) -> Result<Arc<dyn ObjectPlace>, Error> {
    let failed = |what, detail: String| Error::Backup {
        url: url.into(),
        detail: PlaceError::new(what, detail).to_string(),
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(PlaceFault::Unreachable, error.to_string()))?;
    let (store, prefix): (Box<dyn ObjectStore>, String) = match address(url)? {
        Address::Directory(path) => {
            if create {
                std::fs::create_dir_all(&path)
                    .map_err(|error| failed(PlaceFault::NoPlace, error.to_string()))?;
            }
            let local = LocalFileSystem::new_with_prefix(&path)
                .map_err(|error| failed(PlaceFault::NoPlace, error.to_string()))?;
            (Box::new(local.with_fsync(true)), String::new())
        }
        Address::Bucket {
            bucket,
            prefix,
            settings,
        } => {
            let store = bucket_store(&bucket, &settings);
            (
                store.map_err(|error| failed(PlaceFault::Unreachable, error.to_string()))?,
                prefix,
            )
        }
    };
    Ok(Arc::new(Remote {
        store,
        prefix,
        runtime,
        stopped: watch::Sender::new(false),
        shown: url.into(),
    }))
}

fn bucket_store(
    bucket: &str,
    settings: &[(String, String)],
) -> Result<Box<dyn ObjectStore>, object_store::Error> {
    // Another one may have been chosen by the program: then it is that.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY_FOR,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retry);
    let mut endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    for (key, value) in settings {
        builder = match key.as_str() {
            "region" => builder.with_region(value),
            _ => {
                endpoint = Some(value.clone());
                builder
            }
        };
    }
    let plain = endpoint
        .as_ref()
        .is_some_and(|url| url.starts_with("http://"));
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let client = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_allow_http(plain);
    Ok(Box::new(builder.with_client_options(client).build()?))
}

impl Remote {
    fn path(&self, name: &str) -> Path {
        match self.prefix.is_empty() {
            true => Path::from(name),
            false => Path::from(format!("{}/{name}", self.prefix)),
        }
    }

    /// Runs a request to its end, or until somebody stops it.
    fn run<T>(
        &self,
        request: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, PlaceError> {
        let mut stopped = self.stopped.subscribe();
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => Err(PlaceError::new(PlaceFault::Stopped, "the cluster is closing")),
                answer = request => answer.map_err(fault_of),
            }
        })
    }
}

impl ObjectPlace for Remote {
    fn put(&self, name: &str, bytes: Vec<u8>, create_only: bool) -> Result<(), PlaceError> {
        let mode = if create_only {
            PutMode::Create
        } else {
            PutMode::Overwrite
        };
        let options = PutOptions::from(mode);
        let path = self.path(name);
        let put = self.store.put_opts(&path, PutPayload::from(bytes), options);
        self.run(put).map(drop)
    }

    fn put_pieces(&self, name: &str, pieces: &mut Pieces<'_>) -> Result<(), PlaceError> {
        let mut part = Vec::new();
        let mut next = |part: &mut Vec<u8>| -> Result<bool, PlaceError> {
            while part.len() < PART_BYTES {
                match pieces()? {
                    Some(piece) => part.extend_from_slice(&piece),
                    None => return Ok(true),
                }
            }
            Ok(false)
        };
        if next(&mut part)? {
            return self.put(name, part, false);
        }
        let path = self.path(name);
        let mut upload = self.run(self.store.put_multipart(&path))?;
        let mut all = || -> Result<(), PlaceError> {
            loop {
                let rest = part.split_off(PART_BYTES.min(part.len()));
                let whole = std::mem::replace(&mut part, rest);
                self.run(upload.put_part(PutPayload::from(whole)))?;
                if part.len() < PART_BYTES && next(&mut part)? {
                    break;
                }
            }
            while !part.is_empty() {
                let rest = part.split_off(PART_BYTES.min(part.len()));
                let last = std::mem::replace(&mut part, rest);
                self.run(upload.put_part(PutPayload::from(last)))?;
            }
            self.run(upload.complete()).map(drop)
        };
        let done = all();
        if done.is_err() {
            // The store forgets the parts; one that does not hear of it keeps them until its own rules remove them.
            let _ = self.run(upload.abort());
        }
        done
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, PlaceError> {
        let path = self.path(name);
        let (size, bytes) = self.run(async {
            let found = self.store.get(&path).await?;
            let size = found.meta.size;
            match size <= PART_BYTES as u64 {
                true => Ok((size, found.bytes().await?)),
                false => Ok((size, Default::default())),
            }
        })?;
        let mut bytes: Vec<u8> = bytes.into();
        // In parts: the time of one request is bounded.
        while (bytes.len() as u64) < size {
            let from = bytes.len() as u64;
            let part = self.get_range(name, from..size.min(from + PART_BYTES as u64))?;
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, PlaceError> {
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let path = self.path(name);
        let bytes = self.run(self.store.get_range(&path, range))?;
        if bytes.len() as u64 != wanted {
            let detail = format!("{name}: expected {wanted} bytes, got {}", bytes.len());
            return Err(PlaceError::new(PlaceFault::Unreachable, detail));
        }
        Ok(bytes.into())
    }

    fn size(&self, name: &str) -> Result<Option<u64>, PlaceError> {
        let path = self.path(name);
        match self.run(self.store.head(&path)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if error.what == PlaceFault::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, PlaceError> {
        use futures_util::TryStreamExt;
        let path = self.path(prefix);
        let metas: Vec<_> = self.run(self.store.list(Some(&path)).try_collect())?;
        let before = match self.prefix.is_empty() {
            true => String::new(),
            false => format!("{}/", self.prefix),
        };
        let name = |meta: &object_store::ObjectMeta| {
            meta.location
                .as_ref()
                .strip_prefix(&before)
                .map(String::from)
        };
        let mut names: Vec<String> = metas.iter().filter_map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn delete(&self, name: &str) -> Result<(), PlaceError> {
        let path = self.path(name);
        match self.run(self.store.delete(&path)) {
            Err(error) if error.what != PlaceFault::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn stop(&self) {
        self.stopped.send_replace(true);
    }
}

fn fault_of(error: object_store::Error) -> PlaceError {
    let detail = error.to_string();
    let says = |word: &str| detail.contains(word);
    let what = match &error {
        _ if says("NoSuchBucket") => PlaceFault::NoPlace,
        object_store::Error::NotFound { .. } => PlaceFault::NotFound,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            PlaceFault::Exists
        }
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => PlaceFault::Denied,
        _ if says("Permission denied")
            || says("InvalidAccessKeyId")
            || says("instance metadata")
            || says("169.254.")
            || says("/latest/api/token") =>
        {
            PlaceFault::Denied
        }
        _ if says("No space left") || says("os error 28") || says("os error 122") => {
            PlaceFault::Full
        }
        _ => PlaceFault::Unreachable,
    };
    PlaceError::new(what, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(
            address("/a/b").expect("a directory"),
            Address::Directory("/a/b".into())
        );
        assert_eq!(
            address("file:///a").expect("a directory"),
            Address::Directory("/a".into())
        );
        let bucket = Address::Bucket {
            bucket: "b".into(),
            prefix: "p/q".into(),
            settings: vec![("endpoint".into(), "http://127.0.0.1:1".into())],
        };
        assert_eq!(
            address("s3://b/p/q/?endpoint=http://127.0.0.1:1").expect("a bucket"),
            bucket
        );
        for bad in ["", "s3://", "gs://b", "s3://b?secret=1", "s3://b?x"] {
            assert!(
                matches!(
                    address(bad),
                    Err(Error::InvalidOption {
                        option: "backup",
                        ..
                    })
                ),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_directory_is_a_place() {
        let dir = std::env::temp_dir().join(format!("aurora-place-{}", std::process::id()));
        let url = dir.display().to_string();
        assert!(place(&url, false).is_err(), "there is none yet");
        let place = place(&url, true).expect("a place");
        place.put("a/b", b"hello".to_vec(), true).expect("new");
        let again = place.put("a/b", b"other".to_vec(), true);
        assert_eq!(again.map_err(|e| e.what), Err(PlaceFault::Exists));
        let large = vec![7; PART_BYTES * 2 + 5];
        let mut pieces = large.chunks(1 << 20).map(<[u8]>::to_vec);
        place
            .put_pieces("a/large", &mut || Ok(pieces.next()))
            .expect("written");
        assert_eq!(place.get("a/large").expect("there"), large);
        assert_eq!(place.get_range("a/b", 1..3).expect("there"), b"el");
        assert_eq!(place.size("a/b"), Ok(Some(5)));
        assert_eq!(place.size("a/c"), Ok(None));
        assert_eq!(place.list("a").expect("names"), ["a/b", "a/large"]);
        place.delete("a/b").expect("gone");
        place.delete("a/b").expect("gone already");
        assert_eq!(
            place.get("a/b").map_err(|e| e.what),
            Err(PlaceFault::NotFound)
        );
        place.stop();
        assert_eq!(
            place.get("a/large").map_err(|e| e.what),
            Err(PlaceFault::Stopped)
        );
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
