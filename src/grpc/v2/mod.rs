//! The Open Inference Protocol ("V2") over gRPC, as KServe and Triton speak it: `inference.GRPCInferenceService`.

mod describe;
mod infer;
mod repository;
mod request;
mod response;
mod statistics;

use tonic::{Request, Response, Status, Streaming};

use super::call::Call;
use super::proto::inference as pb;
use super::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use super::status::status_of;
use super::stream::{Answers, Order, answers};
use crate::error::{Error, ErrorKind, Result as DomainResult};
use crate::inference::{Inference, parse_version};

/// The service over the facade.
#[derive(Debug)]
pub(super) struct InferenceService {
    pub(super) inference: Inference,
}

/// What is not offered, in several RPCs.
const SHARED_MEMORY: &str = "shared memory";

/// What an RPC ends with.
type Answer<T> = Result<Response<T>, Status>;

/// Gives `answer` its wire form.
fn reply<T>(call: &Call, answer: DomainResult<T>) -> Answer<T> {
    answer.map(Response::new).map_err(|error| status_of(&error, call))
}

/// Has `answer` answer a request that only asks.
fn ask<Q, A>(request: Request<Q>, answer: impl FnOnce(Q) -> DomainResult<A>) -> Answer<A> {
    let call = Call::of(request.extensions());
    reply(&call, answer(request.into_inner()))
}

/// The version that a request names: none where the text is empty. Without a model there is none either: V2 knows no default.
fn version(model: &str, text: &str) -> DomainResult<Option<u64>> {
    match (model, text) {
        ("", _) => Err(Error::invalid("the request names no model")),
        (_, "") => Ok(None),
        _ => parse_version(model, text).map(Some),
    }
}

/// The answer of an RPC that is not offered.
fn not_offered<T>(what: &str) -> Answer<T> {
    Err(Status::unimplemented(format!("{what} is not offered by this server")))
}

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
    type ModelStreamInferStream = Answers<pb::ModelStreamInferResponse>;

    async fn server_live(&self, _: Request<pb::ServerLiveRequest>) -> Answer<pb::ServerLiveResponse> {
        Ok(Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<pb::ServerReadyRequest>) -> Answer<pb::ServerReadyResponse> {
        Ok(Response::new(pb::ServerReadyResponse { ready: self.inference.is_ready() }))
    }

    async fn model_ready(&self, request: Request<pb::ModelReadyRequest>) -> Answer<pb::ModelReadyResponse> {
        ask(request, |request| {
            let version = version(&request.name, &request.version)?;
            let ready = match self.inference.is_model_ready(&request.name, version) {
                // As in Triton: who waits for a model asks before there is one.
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                ready => ready?,
            };
            Ok(pb::ModelReadyResponse { ready })
        })
    }

    async fn server_metadata(&self, _: Request<pb::ServerMetadataRequest>) -> Answer<pb::ServerMetadataResponse> {
        Ok(Response::new(describe::server()))
    }

    async fn model_metadata(&self, request: Request<pb::ModelMetadataRequest>) -> Answer<pb::ModelMetadataResponse> {
        ask(request, |request| {
            let version = version(&request.name, &request.version)?;
            let model = self.inference.model(&request.name, version)?;
            Ok(describe::model(&model, &self.inference.versions(&request.name)))
        })
    }

    async fn model_config(&self, request: Request<pb::ModelConfigRequest>) -> Answer<pb::ModelConfigResponse> {
        ask(request, |request| {
            let version = version(&request.name, &request.version)?;
            let model = self.inference.model(&request.name, version)?;
            Ok(pb::ModelConfigResponse { config: Some(model.describe()) })
        })
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Answer<pb::ModelStatisticsResponse> {
        ask(request, |request| {
            // Those of all, where none is named.
            let models = match request.name.as_str() {
                "" => self.inference.select(None, None)?,
                name => self.inference.select(Some(name), version(name, &request.version)?)?,
            };
            let model_stats = models.iter().map(|model| statistics::of(model)).collect();
            Ok(pb::ModelStatisticsResponse { model_stats })
        })
    }

    async fn model_infer(&self, request: Request<pb::ModelInferRequest>) -> Answer<pb::ModelInferResponse> {
        let call = Call::of(request.extensions());
        reply(&call, infer::infer(&self.inference, &call, request.into_inner()).await)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let call = Call::of(request.extensions());
        let inference = self.inference.clone();
        Ok(Response::new(answers(&call, request.into_inner(), Order::Requests, move |call, request| {
            infer::infer_in_stream(inference.clone(), call, request)
        })))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Answer<pb::RepositoryIndexResponse> {
        let call = Call::of(request.extensions());
        reply(&call, repository::index(&self.inference, request.into_inner()).await)
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Answer<pb::RepositoryModelLoadResponse> {
        let call = Call::of(request.extensions());
        reply(&call, repository::load(&self.inference, request.into_inner()).await)
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Answer<pb::RepositoryModelUnloadResponse> {
        let call = Call::of(request.extensions());
        reply(&call, repository::unload(&self.inference, request.into_inner()).await)
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Answer<pb::SystemSharedMemoryStatusResponse> {
        not_offered(SHARED_MEMORY)
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Answer<pb::SystemSharedMemoryRegisterResponse> {
        not_offered(SHARED_MEMORY)
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<pb::SystemSharedMemoryUnregisterResponse> {
        not_offered(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Answer<pb::CudaSharedMemoryStatusResponse> {
        not_offered(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> Answer<pb::CudaSharedMemoryRegisterResponse> {
        not_offered(SHARED_MEMORY)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<pb::CudaSharedMemoryUnregisterResponse> {
        not_offered(SHARED_MEMORY)
    }

    async fn trace_setting(&self, _: Request<pb::TraceSettingRequest>) -> Answer<pb::TraceSettingResponse> {
        not_offered("changing what is traced")
    }

    async fn log_settings(&self, _: Request<pb::LogSettingsRequest>) -> Answer<pb::LogSettingsResponse> {
        not_offered("changing what is logged")
    }
}
