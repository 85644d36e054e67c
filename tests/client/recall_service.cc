#include "tests/client/recall_service.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <cmath>
#include <map>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "mneme/v1/errors.pb.h"
#include "mneme/v1/inference.grpc.pb.h"
#include "mneme/v1/sessions.grpc.pb.h"
#include "tests/client/service_errors.h"

namespace mneme {
namespace {

std::vector<std::string> Words(const std::string& text) {
  return absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
}

struct State {
  v1::Session session;
  std::string text;
  std::vector<std::string> pieces;
};

// Adds to what the session has read; returns the number of tokens.
uint64_t Read(State& state, const std::string& text) {
  const uint64_t tokens = Words(text).size();
  state.text += text;
  state.session.set_position(state.session.position() + tokens);
  state.session.set_version(state.session.position() / RecallService::kChunkSize);
  state.session.set_device_bytes(state.session.version() << 20);
  return tokens;
}

std::string Answer(const State& state, std::string question) {
  if (question.ends_with('?')) question.pop_back();
  const size_t at = state.text.find(question);
  if (at == std::string::npos || state.session.controls().freeze()) return "unknown";
  std::string word = Words(state.text.substr(at + question.size())).at(0);
  if (word.ends_with('.')) word.pop_back();
  return word;
}

}  // namespace

class RecallService::Impl : public v1::SessionService::Service,
                            public v1::InferenceService::Service,
                            public grpc::health::v1::Health::Service {
 public:
  Impl() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<v1::SessionService::Service*>(this));
    builder.RegisterService(static_cast<v1::InferenceService::Service*>(this));
    builder.RegisterService(static_cast<grpc::health::v1::Health::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~Impl() override { server_->Shutdown(); }

  grpc::Status CreateSession(grpc::ServerContext*, const v1::CreateSessionRequest* request,
                             v1::Session* response) override {
    std::lock_guard lock(mutex_);
    const std::string id =
        request->has_session_id() ? request->session_id() : absl::StrCat("drawn-", ++drawn_);
    if (states_.contains(id)) return {grpc::StatusCode::ALREADY_EXISTS, "exists"};
    v1::Session& session = states_[id].session;
    session.set_session_id(id);
    session.set_model("words");
    session.set_chunk_size(kChunkSize);
    *session.mutable_controls() = request->controls();
    *session.mutable_labels() = request->labels();
    if (request->has_ttl()) *session.mutable_ttl() = request->ttl();
    *response = session;
    return grpc::Status::OK;
  }

  grpc::Status GetSession(grpc::ServerContext*, const v1::GetSessionRequest* request,
                          v1::Session* response) override {
    std::lock_guard lock(mutex_);
    const auto found = states_.find(request->session_id());
    if (found == states_.end()) return NotFound(request->session_id());
    *response = found->second.session;
    return grpc::Status::OK;
  }

  grpc::Status ListSessions(grpc::ServerContext*, const v1::ListSessionsRequest* request,
                            v1::ListSessionsResponse* response) override {
    std::lock_guard lock(mutex_);
    for (auto it = states_.upper_bound(request->page_token()); it != states_.end(); ++it) {
      *response->add_sessions() = it->second.session;
      if (response->sessions_size() < static_cast<int>(request->page_size())) continue;
      response->set_next_page_token(it->first);
      break;
    }
    return grpc::Status::OK;
  }

  // Knows the path controls.freeze alone.
  grpc::Status UpdateSession(grpc::ServerContext*, const v1::UpdateSessionRequest* request,
                             v1::Session* response) override {
    std::lock_guard lock(mutex_);
    const auto found = states_.find(request->session().session_id());
    if (found == states_.end()) return NotFound(request->session().session_id());
    for (const std::string& path : request->update_mask().paths()) {
      if (!path.starts_with("controls.")) return {grpc::StatusCode::INVALID_ARGUMENT, path};
    }
    found->second.session.mutable_controls()->MergeFrom(request->session().controls());
    *response = found->second.session;
    return grpc::Status::OK;
  }

  // A fork has read all that its parent has, whatever its position.
  grpc::Status ForkSession(grpc::ServerContext*, const v1::ForkSessionRequest* request,
                           v1::Session* response) override {
    std::lock_guard lock(mutex_);
    const auto found = states_.find(request->session_id());
    if (found == states_.end()) return NotFound(request->session_id());
    State& fork = states_[request->new_session_id()] = found->second;
    fork.session.set_session_id(request->new_session_id());
    if (request->has_at_position()) fork.session.set_position(request->at_position());
    if (IsCheckpoint(request->checkpoint())) fork.session.set_position(5);
    *response = fork.session;
    return grpc::Status::OK;
  }

  // Always holds five tokens, and a name is that of all sessions.
  grpc::Status CheckpointSession(grpc::ServerContext*, const v1::CheckpointSessionRequest* request,
                                 v1::CheckpointSessionResponse* response) override {
    std::lock_guard lock(mutex_);
    checkpoint_ = request->name();
    response->set_position(5);
    response->set_checkpoint_bytes(4096);
    return grpc::Status::OK;
  }

  // Sets the position and forgets nothing.
  grpc::Status RollbackSession(grpc::ServerContext*, const v1::RollbackSessionRequest* request,
                               v1::Session* response) override {
    std::lock_guard lock(mutex_);
    const auto found = states_.find(request->session_id());
    if (found == states_.end()) return NotFound(request->session_id());
    const bool named = IsCheckpoint(request->checkpoint());
    found->second.session.set_position(named ? 5 : request->to_position());
    *response = found->second.session;
    return grpc::Status::OK;
  }

  grpc::Status DeleteSession(grpc::ServerContext*, const v1::DeleteSessionRequest* request,
                             v1::DeleteSessionResponse*) override {
    std::lock_guard lock(mutex_);
    return states_.erase(request->session_id()) > 0 ? grpc::Status::OK
                                                    : NotFound(request->session_id());
  }

  // An archive is what the session has read, in pieces of three bytes; its id is their number.
  grpc::Status ExportSession(grpc::ServerContext*, const v1::ExportSessionRequest* request,
                             grpc::ServerWriter<v1::ExportSessionResponse>* writer) override {
    std::lock_guard lock(mutex_);
    const auto found = states_.find(request->session_id());
    if (found == states_.end()) return NotFound(request->session_id());
    const std::string& archive = found->second.text;
    v1::ExportSessionResponse piece;
    piece.set_archive_id(absl::StrCat(archive.size()));
    piece.set_size_bytes(archive.size());
    export_offsets_.push_back(request->offset());
    if (!request->archive_id().empty() && request->archive_id() != piece.archive_id()) {
      return {grpc::StatusCode::ABORTED, "the session has changed"};
    }
    for (size_t at = request->offset(); at < archive.size(); at += piece.data().size()) {
      if (at >= break_export_at_) {
        break_export_at_ = SIZE_MAX;
        return {grpc::StatusCode::UNAVAILABLE, "the line is cut"};
      }
      piece.set_data(archive.substr(at, 3));
      writer->Write(piece);
    }
    return grpc::Status::OK;
  }

  grpc::Status ImportSession(grpc::ServerContext* context,
                             grpc::ServerReader<v1::ImportSessionRequest>* reader,
                             v1::Session* response) override {
    v1::ImportSessionRequest message;
    v1::CreateSessionRequest create;
    while (reader->Read(&message)) {
      std::lock_guard lock(mutex_);
      if (message.has_session_id()) create.set_session_id(message.session_id());
      if (message.has_import_id()) {
        import_offsets_.push_back(message.offset());
        if (message.offset() != imported_.size()) return GoOnAt(imported_.size());
      }
      imported_ += message.data().substr(0, break_import_at_);
      if (std::exchange(break_import_at_, SIZE_MAX) != SIZE_MAX) {
        return {grpc::StatusCode::UNAVAILABLE, "the line is cut"};
      }
    }
    const grpc::Status status = CreateSession(context, &create, response);
    std::lock_guard lock(mutex_);
    const std::string archive = std::exchange(imported_, "");
    if (!status.ok()) return status;
    Read(states_[response->session_id()], archive);
    return status;
  }

  grpc::Status Append(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::AppendProgress, v1::AppendRequest>* stream) override {
    v1::AppendRequest request;
    std::string session_id;
    bool return_logprobs = false;
    while (stream->Read(&request)) {
      if (!request.session_id().empty()) session_id = request.session_id();
      return_logprobs |= request.return_logprobs();
      v1::AppendProgress progress;
      grpc::Status status = AppendOne(session_id, request, return_logprobs, progress);
      if (!status.ok()) return status;
      stream->Write(progress);
    }
    return grpc::Status::OK;
  }

  grpc::Status Generate(grpc::ServerContext*, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateEvent>* writer) override {
    v1::GenerateEvent event;
    if (request->text() == "forever") {
      event.mutable_token()->set_text("on ");
      while (writer->Write(event)) {
      }
      return grpc::Status::CANCELLED;
    }
    std::string completion;
    grpc::Status status = Complete(*request, completion, *event.mutable_finished());
    if (!status.ok()) return status;
    const v1::GenerateEvent finished = event;
    for (const std::string& word : Words(completion)) {
      event.mutable_token()->set_text(word + " ");
      writer->Write(event);
    }
    writer->Write(finished);
    return grpc::Status::OK;
  }

  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    for (const std::string& word : Words(request->text())) {
      response->add_ids(static_cast<uint32_t>(word.size()));
    }
    return grpc::Status::OK;
  }

  grpc::Status Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest*,
                     grpc::health::v1::HealthCheckResponse* response) override {
    std::lock_guard lock(mutex_);
    using Response = grpc::health::v1::HealthCheckResponse;
    response->set_status(draining_ ? Response::NOT_SERVING : Response::SERVING);
    return grpc::Status::OK;
  }

  // NOT_SERVING first, then SERVING, as of a server that starts.
  grpc::Status Watch(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest*,
                     grpc::ServerWriter<grpc::health::v1::HealthCheckResponse>* writer) override {
    grpc::health::v1::HealthCheckResponse response;
    response.set_status(grpc::health::v1::HealthCheckResponse::NOT_SERVING);
    writer->Write(response);
    response.set_status(grpc::health::v1::HealthCheckResponse::SERVING);
    writer->Write(response);
    return grpc::Status::OK;
  }

  State state(const std::string& session_id) const {
    std::lock_guard lock(mutex_);
    return states_.at(session_id);
  }
  std::vector<std::string> session_ids() const {
    std::lock_guard lock(mutex_);
    std::vector<std::string> ids;
    for (const auto& [id, unused] : states_) ids.push_back(id);
    return ids;
  }
  void Drain() {
    std::lock_guard lock(mutex_);
    draining_ = true;
  }
  void BreakExportAt(size_t bytes) {
    std::lock_guard lock(mutex_);
    break_export_at_ = bytes;
  }
  void BreakImportAt(size_t bytes) {
    std::lock_guard lock(mutex_);
    break_import_at_ = bytes;
  }
  std::vector<uint64_t> export_offsets() const {
    std::lock_guard lock(mutex_);
    return export_offsets_;
  }
  std::vector<uint64_t> import_offsets() const {
    std::lock_guard lock(mutex_);
    return import_offsets_;
  }
  int port() const { return port_; }

 private:
  grpc::Status AppendOne(const std::string& session_id, const v1::AppendRequest& request,
                         bool return_logprobs, v1::AppendProgress& progress) {
    std::lock_guard lock(mutex_);
    if (draining_) return Draining();
    const auto found = states_.find(session_id);
    if (found == states_.end()) return NotFound(session_id);
    State& state = found->second;
    if (request.has_expected_position() &&
        request.expected_position() != state.session.position()) {
      v1::ErrorDetail detail;
      detail.set_reason(v1::ERROR_REASON_POSITION_MISMATCH);
      detail.set_position(state.session.position());
      detail.set_version(state.session.version());
      return Error(grpc::StatusCode::ABORTED, "the session moved", detail);
    }
    std::string piece = request.text();
    for (const uint32_t id : request.token_ids().ids()) absl::StrAppend(&piece, " #", id);
    for (const auto& turn : request.messages().messages()) {
      absl::StrAppend(&piece, turn.role(), ": ", turn.content(), "\n");
    }
    const bool first = state.session.position() == 0;
    const uint64_t tokens = Read(state, piece);
    if (tokens == 0) return {grpc::StatusCode::INVALID_ARGUMENT, "no token in the input"};
    state.pieces.push_back(piece);
    progress.set_position(state.session.position());
    progress.set_version(state.session.version());
    progress.set_chunks_closed(state.session.version());
    for (uint64_t i = 0; return_logprobs && i < tokens; ++i) {
      progress.add_logprobs(first && i == 0 ? std::nanf("") : std::log(0.5F));
    }
    return grpc::Status::OK;
  }

  grpc::Status Complete(const v1::GenerateRequest& request, std::string& completion,
                        v1::Finished& finished) {
    std::lock_guard lock(mutex_);
    if (draining_) return Draining();
    State throw_away;
    const auto found = states_.find(request.session_id());
    if (found == states_.end() && !request.session_id().empty()) {
      return NotFound(request.session_id());
    }
    State& state = found == states_.end() ? throw_away : found->second;
    std::string prompt = request.text();
    for (const auto& turn : request.messages().messages()) prompt += turn.content();
    completion = request.has_messages() ? Answer(state, prompt) : "and so on";
    const uint64_t chunks_before = state.session.version();
    if (!request.has_learn() || request.learn()) Read(state, prompt + " " + completion + " ");
    finished.set_reason(v1::FINISH_REASON_STOP);
    finished.mutable_usage()->set_prompt_tokens(Words(prompt).size());
    finished.mutable_usage()->set_completion_tokens(Words(completion).size());
    finished.mutable_usage()->set_chunks_closed(state.session.version() - chunks_before);
    finished.set_position(state.session.position());
    finished.set_version(state.session.version());
    return grpc::Status::OK;
  }

  bool IsCheckpoint(const std::string& name) const { return !name.empty() && name == checkpoint_; }

  mutable std::mutex mutex_;
  std::string checkpoint_;                // the last one's name; guarded by mutex_
  std::map<std::string, State> states_;   // guarded by mutex_
  size_t break_export_at_ = SIZE_MAX;     // guarded by mutex_
  std::vector<uint64_t> export_offsets_;  // guarded by mutex_
  size_t break_import_at_ = SIZE_MAX;     // guarded by mutex_
  std::string imported_;                  // of an import that is not whole; guarded by mutex_
  std::vector<uint64_t> import_offsets_;  // guarded by mutex_
  int drawn_ = 0;                         // guarded by mutex_
  bool draining_ = false;                 // guarded by mutex_
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

RecallService::RecallService() : impl_(std::make_unique<Impl>()) {}
RecallService::~RecallService() = default;

std::string RecallService::address() const { return absl::StrCat("127.0.0.1:", impl_->port()); }
std::string RecallService::text(const std::string& session_id) const {
  return impl_->state(session_id).text;
}
std::vector<std::string> RecallService::pieces(const std::string& session_id) const {
  return impl_->state(session_id).pieces;
}
void RecallService::BreakExportAt(size_t bytes) { impl_->BreakExportAt(bytes); }
std::vector<uint64_t> RecallService::export_offsets() const { return impl_->export_offsets(); }
void RecallService::BreakImportAt(size_t bytes) { impl_->BreakImportAt(bytes); }
std::vector<uint64_t> RecallService::import_offsets() const { return impl_->import_offsets(); }
std::vector<std::string> RecallService::session_ids() const { return impl_->session_ids(); }
void RecallService::Drain() { impl_->Drain(); }

}  // namespace mneme
