#ifndef MNEME_TESTS_SERVER_FAKE_ENGINE_H_
#define MNEME_TESTS_SERVER_FAKE_ENGINE_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/error.h"

namespace mneme {

// A request as the engine got it; the test plays the engine on its channel.
struct AcceptedRequest {
  std::optional<AppendRequest> append;
  std::optional<GenerateRequest> generate;
  std::shared_ptr<RequestChannel> channel;
};

// An engine that keeps sessions in a map and leaves requests to the test.
class FakeEngine final : public Engine {
 public:
  FakeEngine();

  // Blocks until a request has come and hands it over, in the order of arrival.
  AcceptedRequest NextRequest();
  // Blocks until `condition` holds; looks again whenever a client has done something.
  void Await(const std::function<bool()>& condition);
  // How often clients have done something on their channels.
  int notifications() const;
  // From now on requests end at once, inside the call, with `status`; OK: they are accepted again.
  void RefuseRequests(const absl::Status& status);
  void Fail(const absl::Status& status);

  const ModelConfig& config() const override { return config_; }
  const GenerationDefaults& defaults() const override { return defaults_; }
  const EngineOptions& options() const override { return options_; }
  std::string backend_description() const override { return "fake"; }
  const Tokenizer* tokenizer() const override { return nullptr; }

  void CreateSession(SessionKey key, SessionOptions options, Done<SessionInfo> done) override;
  void GetSession(SessionKey key, Done<SessionInfo> done) override;
  void ListSessions(std::string tenant, std::string after, int limit,
                    Done<SessionPage> done) override;
  void UpdateSession(SessionKey key, SessionUpdate update, Done<SessionInfo> done) override;
  // A fork is at the position `at`, or where its parent is; a rollback sets the position.
  void ForkSession(SessionKey key, std::string new_id, HistoryPoint at, GaveUp gave_up,
                   Done<SessionInfo> done) override;
  void RollbackSession(SessionKey key, HistoryPoint to, GaveUp gave_up,
                       Done<SessionInfo> done) override;
  // Every archive is `archive_`; without one it makes and takes none.
  void ExportSession(SessionKey key, Done<SessionArchive> done) override;
  void BeginImport(SessionKey key, ImportStart start,
                   Done<std::shared_ptr<ArchiveFile>> done) override;
  void ImportSession(SessionKey key, std::shared_ptr<ArchiveFile> archive,
                     Done<SessionInfo> done) override;
  void CheckpointSession(SessionKey key, std::string name, GaveUp gave_up,
                         Done<CheckpointSummary> done) override;
  void DeleteSession(SessionKey key, Done<SessionInfo> done) override;
  void Append(AppendRequest request, std::shared_ptr<RequestChannel> channel) override;
  void Generate(GenerateRequest request, std::shared_ptr<RequestChannel> channel) override;
  void Cancel(SessionKey key, std::string request_id, Done<std::monostate> done) override;
  void GetLoad(Done<EngineLoad> done) override;
  void Drain(absl::Duration grace) override;
  absl::Status health() const override;
  void SetFailureCallback(std::function<void(absl::Status)> on_failure) override;

  // How often archive_ was lent.
  int archives_lent() const;

  GenerationDefaults defaults_;
  EngineOptions options_;
  std::shared_ptr<ArchiveFile> archive_;

 private:
  void Accept(AcceptedRequest request);
  std::shared_ptr<ArchiveFile> LendArchive();
  absl::StatusOr<SessionInfo*> Find(const SessionKey& key);

  ModelConfig config_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int notifications_ = 0;
  int archives_lent_ = 0;
  std::deque<AcceptedRequest> requests_;
  std::vector<std::weak_ptr<RequestChannel>> channels_;
  absl::Status refusal_;
  absl::Status health_;
  std::function<void(absl::Status)> on_failure_;
  std::map<SessionKey, SessionInfo> sessions_;
};

}  // namespace mneme

#endif  // MNEME_TESTS_SERVER_FAKE_ENGINE_H_
