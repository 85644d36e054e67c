#include "tests/engine/durability/durable_engine.h"

#include <utility>

#include "base/check.h"

namespace mneme {

DurableEngine::DurableEngine(std::filesystem::path model_dir, HarnessOptions options,
                             Durability durability)
    : model_dir_(std::move(model_dir)),
      options_(std::move(options)),
      disk_(std::make_shared<FaultyFileSystem>(directory_ / "graveyard")) {
  std::filesystem::create_directory(data_dir());
  const LogWriterOptions log = {.durability = durability,
                                .sync_interval = std::chrono::hours(1),
                                .retry_delay = std::chrono::milliseconds(1),
                                .compact_after_records = 16};
  options_.open_store = [this, log] {
    auto opened = SessionStore::Open({.data_dir = data_dir(), .files = disk_, .log = log});
    MNEME_CHECK(opened.ok());
    return *std::move(opened);
  };
  Start();
}

void DurableEngine::Start(const std::filesystem::path& model_dir) {
  Stop();
  engine_ = std::make_unique<LoopHarness>(model_dir.empty() ? model_dir_ : model_dir, options_);
}

void DurableEngine::CutPowerAt(int operation) {
  auto left = std::make_shared<std::atomic<int>>(operation);
  disk_->SetHook([this, left](FileOp, const std::string&) {
    if ((*left)-- == 0) {
      disk_->CutPower();
      cut_ = true;
      engine_->Wake();
    }
    return cut_ ? rocksdb::IOStatus::IOError("the power is cut") : rocksdb::IOStatus::OK();
  });
}

void DurableEngine::CutPowerAndStart() {
  disk_->CutPower();
  Stop();
  cut_ = false;
  disk_->SetHook(nullptr);
  disk_->RestorePower();
  Start();
}

}  // namespace mneme
