//! The options of `convoy serve`, each a key of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::ServerConfig;
use crate::repository::ModelControlMode;
use crate::telemetry::{LogFormat, OtlpProtocol, SampleRatio};

/// Declares the options and lays them over a configuration, so that no option can be declared and then forgotten.
macro_rules! options {
    ($($(#[$attribute:meta])* $name:ident: $type:ty => $($key:ident).+ $(, $wrap:ident)?;)*) => {
        #[derive(Debug, Args)]
        pub(super) struct Options {
            $($(#[$attribute])* $name: Option<$type>,)*
        }

        impl Options {
            pub(super) fn apply(self, config: &mut ServerConfig) {
                $(if let Some(value) = self.$name {
                    config.$($key).+ = options!(@value value $($wrap)?);
                })*
            }
        }
    };
    (@value $value:ident) => { $value };
    (@value $value:ident $wrap:ident) => { $wrap($value) };
}

options! {
    /// Folder of models, `<name>/<version>/model.onnx`, or a tar archive, an OCI image layout or `s3://bucket/prefix` with such
    /// a folder [default: models]
    #[arg(long, env = "CONVOY_MODEL_REPOSITORY", value_name = "DIR")]
    model_repository: PathBuf => model_repository;

    /// Name of the only model: the repository's folder is then that model's own [default: none]
    #[arg(long, env = "CONVOY_MODEL_NAME", value_name = "NAME")]
    model_name: String => model_name, Some;

    /// Model that /v1/classify uses [default: the only one there is]
    #[arg(long, env = "CONVOY_DEFAULT_MODEL", value_name = "NAME")]
    default_model: String => default_model, Some;

    /// ONNX Runtime library [default: `ORT_DYLIB_PATH`, beside the executable, where `cargo xtask setup` puts it]
    #[arg(long, env = "CONVOY_ONNXRUNTIME_LIBRARY", value_name = "FILE")]
    onnxruntime_library: PathBuf => onnxruntime_library, Some;

    /// How many proxies stand in front, each of which adds to X-Forwarded-For who asked it [default: 0, and the header is not
    /// believed]
    #[arg(long, env = "CONVOY_TRUSTED_PROXIES", value_name = "COUNT")]
    trusted_proxies: usize => trusted_proxies;

    /// Who decides which models are loaded: nobody after the start, the repository's folder, or clients [default: none]
    #[arg(long, env = "CONVOY_MODEL_CONTROL_MODE", value_enum)]
    model_control_mode: ModelControlMode => model_control.mode;

    /// How often the repository is looked at in the mode poll, and how long a change must be over, in milliseconds
    /// [default: 5000]
    #[arg(long, env = "CONVOY_MODEL_CONTROL_POLL_INTERVAL_MS", value_name = "MS")]
    model_control_poll_interval_ms: u64 => model_control.poll_interval_ms;

    /// Models to load at the start in the mode explicit, separated by commas, or * [default: none]
    #[arg(long, env = "CONVOY_MODEL_CONTROL_LOAD", value_name = "NAMES", value_delimiter = ',')]
    model_control_load: Vec<String> => model_control.load;

    /// Whether the server is ready only while every model that is to be served is [default: false]
    #[arg(long, env = "CONVOY_MODEL_CONTROL_STRICT_READINESS", value_name = "BOOL")]
    model_control_strict_readiness: bool => model_control.strict_readiness;

    /// Folder in which it is kept what was fetched from a model store [default: ~/.cache/convoy/stores]
    #[arg(long, env = "CONVOY_MODEL_STORE_CACHE", value_name = "DIR")]
    model_store_cache: PathBuf => model_store.cache, Some;

    /// How often a model store is looked at in the mode poll, and how long models must have rested in it, in milliseconds
    /// [default: 30000]
    #[arg(long, env = "CONVOY_MODEL_STORE_POLL_INTERVAL_MS", value_name = "MS")]
    model_store_poll_interval_ms: u64 => model_store.poll_interval_ms;

    /// Most bytes that all models of a store may take, unpacked [default: 34359738368]
    #[arg(long, env = "CONVOY_MODEL_STORE_MAX_BYTES", value_name = "BYTES")]
    model_store_max_bytes: u64 => model_store.max_bytes;

    /// Folder of models in an archive or image [default: models in an image, what fits in an archive]
    #[arg(long, env = "CONVOY_MODEL_STORE_PATH", value_name = "DIR")]
    model_store_path: String => model_store.path, Some;

    /// URL of an S3-compatible server [default: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, else Amazon's]
    #[arg(long, env = "CONVOY_MODEL_STORE_ENDPOINT", value_name = "URL")]
    model_store_endpoint: String => model_store.endpoint, Some;

    /// Region of the bucket [default: `AWS_REGION`, `AWS_DEFAULT_REGION`, else us-east-1]
    #[arg(long, env = "CONVOY_MODEL_STORE_REGION", value_name = "NAME")]
    model_store_region: String => model_store.region, Some;

    /// Whether the bucket stands in the URL's path, not in the host's name [default: true]
    #[arg(long, env = "CONVOY_MODEL_STORE_PATH_STYLE", value_name = "BOOL")]
    model_store_path_style: bool => model_store.path_style;

    /// Whether requests go without credentials, to a public bucket [default: false]
    #[arg(long, env = "CONVOY_MODEL_STORE_ANONYMOUS", value_name = "BOOL")]
    model_store_anonymous: bool => model_store.anonymous;

    /// Whether an `ETag` that looks like an MD5 must be that of the bytes [default: true]
    #[arg(long, env = "CONVOY_MODEL_STORE_CHECK_ETAG", value_name = "BOOL")]
    model_store_check_etag: bool => model_store.check_etag;

    /// Folder in which it is kept how models were tuned [default: ~/.cache/convoy/tuning]
    #[arg(long, env = "CONVOY_TUNING_CACHE", value_name = "DIR")]
    tuning_cache: PathBuf => tuning.cache, Some;

    /// Where HTTP listens; port 0 takes a free one [default: 0.0.0.0:8000]
    #[arg(long, env = "CONVOY_HTTP_ADDRESS", value_name = "IP:PORT")]
    http_address: SocketAddr => http.address;

    /// Largest request body in bytes, after decompression [default: 67108864]
    #[arg(long, env = "CONVOY_HTTP_MAX_BODY_BYTES", value_name = "BYTES")]
    http_max_body_bytes: usize => http.max_body_bytes;

    /// How deep a JSON body may nest [default: 32]
    #[arg(long, env = "CONVOY_HTTP_MAX_JSON_DEPTH", value_name = "LEVELS")]
    http_max_json_depth: usize => http.max_json_depth;

    /// How long a request's body may stand still, in milliseconds [default: 30000]
    #[arg(long, env = "CONVOY_HTTP_BODY_TIMEOUT_MS", value_name = "MS")]
    http_body_timeout_ms: u64 => http.body_timeout_ms;

    /// How long a request's body may take in all, in milliseconds [default: 300000]
    #[arg(long, env = "CONVOY_HTTP_BODY_DEADLINE_MS", value_name = "MS")]
    http_body_deadline_ms: u64 => http.body_deadline_ms;

    /// How long a connection may go without a complete request head, in milliseconds [default: 75000]
    #[arg(long, env = "CONVOY_HTTP_IDLE_TIMEOUT_MS", value_name = "MS")]
    http_idle_timeout_ms: u64 => http.idle_timeout_ms;

    /// How many connections may be open at once [default: no limit]
    #[arg(long, env = "CONVOY_HTTP_MAX_CONNECTIONS", value_name = "COUNT")]
    http_max_connections: usize => http.max_connections, Some;

    /// Origins whose pages may call this server from a browser, separated by commas, or * [default: none]
    #[arg(long, env = "CONVOY_HTTP_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',')]
    http_cors_origins: Vec<String> => http.cors_origins;

    /// Further path of the readiness probe [default: `AIP_HEALTH_ROUTE`, else none]
    #[arg(long, env = "CONVOY_HTTP_HEALTH_ROUTE", value_name = "PATH")]
    http_health_route: String => http.health_route, Some;

    /// Further path of /invocations [default: `AIP_PREDICT_ROUTE`, else none]
    #[arg(long, env = "CONVOY_HTTP_PREDICT_ROUTE", value_name = "PATH")]
    http_predict_route: String => http.predict_route, Some;

    /// Where gRPC listens; port 0 takes a free one [default: 0.0.0.0:8001]
    #[arg(long, env = "CONVOY_GRPC_ADDRESS", value_name = "IP:PORT")]
    grpc_address: SocketAddr => grpc.address;

    /// Largest gRPC message in bytes, after decompression [default: 67108864]
    #[arg(long, env = "CONVOY_GRPC_MAX_MESSAGE_BYTES", value_name = "BYTES")]
    grpc_max_message_bytes: usize => grpc.max_message_bytes;

    /// How many calls one gRPC connection may have open at once [default: 256]
    #[arg(long, env = "CONVOY_GRPC_MAX_CONCURRENT_STREAMS", value_name = "COUNT")]
    grpc_max_concurrent_streams: u32 => grpc.max_concurrent_streams;

    /// How many gRPC connections may be open at once [default: no limit]
    #[arg(long, env = "CONVOY_GRPC_MAX_CONNECTIONS", value_name = "COUNT")]
    grpc_max_connections: usize => grpc.max_connections, Some;

    /// How long a gRPC message may take to arrive, in milliseconds [default: 300000]
    #[arg(long, env = "CONVOY_GRPC_MESSAGE_TIMEOUT_MS", value_name = "MS")]
    grpc_message_timeout_ms: u64 => grpc.message_timeout_ms;

    /// After how long a silent gRPC client is asked whether it is still there, in milliseconds [default: 30000]
    #[arg(long, env = "CONVOY_GRPC_KEEP_ALIVE_INTERVAL_MS", value_name = "MS")]
    grpc_keep_alive_interval_ms: u64 => grpc.keep_alive_interval_ms;

    /// How long it may take to say so before its connection is closed, in milliseconds [default: 20000]
    #[arg(long, env = "CONVOY_GRPC_KEEP_ALIVE_TIMEOUT_MS", value_name = "MS")]
    grpc_keep_alive_timeout_ms: u64 => grpc.keep_alive_timeout_ms;

    /// Where GET /metrics listens; port 0 takes a free one [default: 0.0.0.0:8002]
    #[arg(long, env = "CONVOY_METRICS_ADDRESS", value_name = "IP:PORT")]
    metrics_address: SocketAddr => metrics.address;

    /// File of the API keys that are taken [default: none, and no key is asked for]
    #[arg(long, env = "CONVOY_AUTH_KEYS_FILE", value_name = "FILE")]
    auth_keys_file: PathBuf => auth.keys_file, Some;

    /// The server's certificate chain (PEM) [default: none, and no TLS]
    #[arg(long, env = "CONVOY_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: PathBuf => tls.certificate, Some;

    /// The certificate's private key (PEM)
    #[arg(long, env = "CONVOY_TLS_KEY", value_name = "FILE")]
    tls_key: PathBuf => tls.key, Some;

    /// Certificates (PEM) that must have signed the clients' [default: none, and clients need no certificate]
    #[arg(long, env = "CONVOY_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: PathBuf => tls.client_ca, Some;

    /// Most pictures in one request [default: 64]
    #[arg(long, env = "CONVOY_LIMITS_MAX_PICTURES", value_name = "COUNT")]
    limits_max_pictures: usize => limits.max_pictures;

    /// Most pixels of one picture, by its own header [default: 100000000]
    #[arg(long, env = "CONVOY_LIMITS_MAX_PIXELS", value_name = "COUNT")]
    limits_max_pixels: u64 => limits.max_pixels;

    /// Most memory that decoding one picture may take, in bytes [default: 268435456]
    #[arg(long, env = "CONVOY_LIMITS_MAX_DECODE_BYTES", value_name = "BYTES")]
    limits_max_decode_bytes: u64 => limits.max_decode_bytes;

    /// Largest input tensor in bytes [default: 67108864]
    #[arg(long, env = "CONVOY_LIMITS_MAX_TENSOR_BYTES", value_name = "BYTES")]
    limits_max_tensor_bytes: usize => limits.max_tensor_bytes;

    /// Most bytes of request bodies in memory at once [default: 536870912]
    #[arg(long, env = "CONVOY_LIMITS_MAX_INFLIGHT_BYTES", value_name = "BYTES")]
    limits_max_inflight_bytes: usize => limits.max_inflight_bytes;

    /// How many pictures are decoded at the same time [default: one for each core]
    #[arg(long, env = "CONVOY_LIMITS_DECODE_THREADS", value_name = "COUNT")]
    limits_decode_threads: usize => limits.decode_threads;

    /// Most bytes that kept answers may take [default: 0, and none is kept]
    #[arg(long, env = "CONVOY_RESPONSE_CACHE_MAX_BYTES", value_name = "BYTES")]
    response_cache_max_bytes: usize => response_cache.max_bytes;

    /// How many explanations are worked on at the same time [default: 1]
    #[arg(long, env = "CONVOY_EXPLAIN_MAX_CONCURRENT", value_name = "COUNT")]
    explain_max_concurrent: usize => explain.max_concurrent;

    /// How many more explanations may wait for their turn [default: 16]
    #[arg(long, env = "CONVOY_EXPLAIN_MAX_WAITING", value_name = "COUNT")]
    explain_max_waiting: usize => explain.max_waiting;

    /// After how many milliseconds, waiting included, an explanation is given up [default: 300000]
    #[arg(long, env = "CONVOY_EXPLAIN_TIMEOUT_MS", value_name = "MS")]
    explain_timeout_ms: u64 => explain.timeout_ms;

    /// About how many bytes the graphs may take that are kept between explanations [default: 536870912]
    #[arg(long, env = "CONVOY_EXPLAIN_CACHE_BYTES", value_name = "BYTES")]
    explain_cache_bytes: usize => explain.cache_bytes;

    /// How log events are written to standard error [default: text]
    #[arg(long, env = "CONVOY_LOG_FORMAT", value_enum)]
    log_format: LogFormat => log.format;

    /// Which log events are written: a level, then levels of modules, as in `info,convoy::access=debug` [default: info,ort=warn]
    #[arg(long, env = "CONVOY_LOG_LEVEL", value_name = "FILTER")]
    log_level: String => log.level;

    /// The OpenTelemetry collector that traces are sent to [default: none, and nothing is traced]
    #[arg(long, env = "CONVOY_TRACING_ENDPOINT", value_name = "URL")]
    tracing_endpoint: String => tracing.endpoint, Some;

    /// How traces are sent there [default: grpc]
    #[arg(long, env = "CONVOY_TRACING_PROTOCOL", value_enum)]
    tracing_protocol: OtlpProtocol => tracing.protocol;

    /// Which share of requests is traced where their caller has not decided, from 0 to 1 [default: 1]
    #[arg(long, env = "CONVOY_TRACING_SAMPLE_RATIO", value_name = "RATIO")]
    tracing_sample_ratio: SampleRatio => tracing.sample_ratio;

    /// The name of this service in traces [default: convoy]
    #[arg(long, env = "CONVOY_TRACING_SERVICE_NAME", value_name = "NAME")]
    tracing_service_name: String => tracing.service_name;

    /// Headers that go with every export, `name=value`, separated by commas [default: none]
    #[arg(long, env = "CONVOY_TRACING_HEADERS", value_name = "HEADERS", value_delimiter = ',', hide_env_values = true)]
    tracing_headers: Vec<String> => tracing.headers;

    /// How long requests are still taken after readiness went false, in milliseconds [default: 2000]
    #[arg(long, env = "CONVOY_SHUTDOWN_GRACE_MS", value_name = "MS")]
    shutdown_grace_ms: u64 => shutdown.grace_ms;

    /// Time from the signal after which unanswered requests are cut off, in milliseconds [default: 25000]
    #[arg(long, env = "CONVOY_SHUTDOWN_TIMEOUT_MS", value_name = "MS")]
    shutdown_timeout_ms: u64 => shutdown.timeout_ms;
}
