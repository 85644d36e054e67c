#ifndef MNEME_TESTS_E2E_REAL_SERVER_H_
#define MNEME_TESTS_E2E_REAL_SERVER_H_

// The whole server in the test's process: a model directory, a backend, the engine, gRPC.

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/clock.h"
#include "engine/engine.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "kernels/backend.h"
#include "mneme/v1/errors.pb.h"
#include "mneme/v1/inference.grpc.pb.h"
#include "mneme/v1/sessions.grpc.pb.h"
#include "server/lifecycle.h"
#include "server/metrics.h"
#include "server/model_loader.h"
#include "server/server.h"

namespace mneme {

// The outcome of an Append call.
struct AppendResult {
  grpc::Status status;
  std::vector<float> logprobs;
  v1::AppendProgress last;
};

// The outcome of a Generate call.
struct GenerateResult {
  grpc::Status status;
  std::vector<int32_t> ids;
  std::string text;
  int finished_events = 0;
  v1::Finished finished;
};

class RealServer {
 public:
  // Aborts the test program if the model cannot be served. Null: the CPU backend. Sessions are kept
  // in `data_dir` if there is one.
  explicit RealServer(const std::filesystem::path& model_dir,
                      std::unique_ptr<Backend> backend = nullptr, const std::string& data_dir = "");
  ~RealServer();

  // host:port.
  std::string address() const;
  v1::SessionService::Stub& sessions() { return *sessions_; }
  v1::InferenceService::Stub& inference() { return *inference_; }
  grpc::health::v1::Health::Stub& health() { return *health_; }

  // Serves until a signal or a failure, as the program does; its exit code.
  int ServeUntilStopped(StopSignal& stop) {
    return mneme::ServeUntilStopped(stop, *server_, *engine_, absl::ZeroDuration(), logger_);
  }

  grpc::Status Create(const std::string& id, const v1::LearningControls& controls = {});
  // The session's position; fails the test if there is no such session.
  uint64_t PositionOf(const std::string& id);
  AppendResult Append(const std::vector<v1::AppendRequest>& messages);
  GenerateResult Generate(const v1::GenerateRequest& request);

  // Creates a session, reads a token and generates another: true if all of it works.
  bool StillServes();

 private:
  const Clock clock_;
  Metrics metrics_{clock_};
  const Logger logger_{spdlog::level::off, LogFormat::kText};
  LoadedModel loaded_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::SessionService::Stub> sessions_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
  int probes_ = 0;
};

// A message of token ids; the first one of a stream names the session.
v1::AppendRequest IdsMessage(const std::vector<int32_t>& ids, const std::string& session_id = "");

// Greedy, ignoring end-of-text.
v1::GenerateRequest GreedyMessage(const std::string& session_id, uint32_t max_tokens);

// The typed detail of an error; reason UNSPECIFIED if there is none.
v1::ErrorDetail DetailOf(const grpc::Status& status);

}  // namespace mneme

#endif  // MNEME_TESTS_E2E_REAL_SERVER_H_
