#include "tests/e2e/real_server.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace mneme {
namespace {

constexpr int64_t kMaxMessageBytes = 4 << 20;

template <typename T>
T MustHave(absl::StatusOr<T> value) {
  MNEME_CHECK(value.ok());
  return *std::move(value);
}

}  // namespace

RealServer::RealServer(const std::filesystem::path& model_dir, std::unique_ptr<Backend> backend,
                       const std::string& data_dir) {
  if (backend == nullptr) backend = MustHave(CreateCpuBackend({}));
  loaded_ = MustHave(LoadModel({.dir = model_dir, .turn_format = ""}, *backend, logger_));
  tokenizer_ = loaded_.model.tokenizer;
  const EngineOptions options = {.max_step_tokens = 64, .cache_bytes = 64 << 20};
  std::optional<SessionStore::Opened> stored;
  if (!data_dir.empty()) stored = MustHave(SessionStore::Open({.data_dir = data_dir}));
  engine_ = MustHave(Engine::Create(options, std::move(backend), std::move(loaded_.model), clock_,
                                    metrics_, std::move(stored)));
  const ServiceContext context = {
      .engine = *engine_,
      .metrics = metrics_,
      .logger = logger_,
      .clock = clock_,
      .codec = {tokenizer_.get(), loaded_.turns ? &*loaded_.turns : nullptr,
                engine_->config().vocab_size},
      .model = loaded_.description,
      .backend = "cpu",
      .max_message_bytes = kMaxMessageBytes,
      .start_time = clock_.Now(),
  };
  server_ = MustHave(Server::Start("127.0.0.1", 0, context));
  const auto channel = grpc::CreateChannel(address(), grpc::InsecureChannelCredentials());
  sessions_ = v1::SessionService::NewStub(channel);
  inference_ = v1::InferenceService::NewStub(channel);
  health_ = grpc::health::v1::Health::NewStub(channel);
}

RealServer::~RealServer() {
  engine_->Drain(absl::ZeroDuration());
  server_->Shutdown(absl::Seconds(5));
}

std::string RealServer::address() const { return absl::StrCat("127.0.0.1:", server_->port()); }

grpc::Status RealServer::Create(const std::string& id, const v1::LearningControls& controls) {
  grpc::ClientContext context;
  v1::CreateSessionRequest request;
  request.set_session_id(id);
  *request.mutable_controls() = controls;
  v1::Session session;
  return sessions_->CreateSession(&context, request, &session);
}

uint64_t RealServer::PositionOf(const std::string& id) {
  grpc::ClientContext context;
  v1::GetSessionRequest request;
  request.set_session_id(id);
  v1::Session session;
  MNEME_CHECK(sessions_->GetSession(&context, request, &session).ok());
  return session.position();
}

AppendResult RealServer::Append(const std::vector<v1::AppendRequest>& messages) {
  grpc::ClientContext context;
  const auto stream = inference_->Append(&context);
  for (const v1::AppendRequest& message : messages) stream->Write(message);
  stream->WritesDone();
  AppendResult result;
  while (stream->Read(&result.last)) {
    result.logprobs.insert(result.logprobs.end(), result.last.logprobs().begin(),
                           result.last.logprobs().end());
  }
  result.status = stream->Finish();
  return result;
}

GenerateResult RealServer::Generate(const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  const auto stream = inference_->Generate(&context, request);
  GenerateResult result;
  v1::GenerateEvent event;
  while (stream->Read(&event)) {
    if (event.has_finished()) {
      ++result.finished_events;
      result.finished = event.finished();
    } else {
      result.ids.push_back(static_cast<int32_t>(event.token().id()));
      result.text += event.token().text();
    }
  }
  result.status = stream->Finish();
  return result;
}

bool RealServer::StillServes() {
  const std::string id = absl::StrCat("probe-", ++probes_);
  return Create(id).ok() && Append({IdsMessage({5}, id)}).status.ok() &&
         Generate(GreedyMessage(id, 1)).ids.size() == 1 && PositionOf(id) == 2;
}

v1::AppendRequest IdsMessage(const std::vector<int32_t>& ids, const std::string& session_id) {
  v1::AppendRequest message;
  message.set_session_id(session_id);
  for (const int32_t id : ids) message.mutable_token_ids()->add_ids(static_cast<uint32_t>(id));
  return message;
}

v1::GenerateRequest GreedyMessage(const std::string& session_id, uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_session_id(session_id);
  request.mutable_sampling()->set_temperature(0);
  request.set_max_tokens(max_tokens);
  request.set_ignore_eos(true);
  return request;
}

v1::ErrorDetail DetailOf(const grpc::Status& status) {
  v1::RpcStatus rpc_status;
  v1::ErrorDetail detail;
  if (rpc_status.ParseFromString(status.error_details()) && rpc_status.details_size() == 1) {
    rpc_status.details(0).UnpackTo(&detail);
  }
  return detail;
}

}  // namespace mneme
