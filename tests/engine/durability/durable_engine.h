#ifndef MNEME_TESTS_ENGINE_DURABILITY_DURABLE_ENGINE_H_
#define MNEME_TESTS_ENGINE_DURABILITY_DURABLE_ENGINE_H_

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>

#include "tests/engine/loop_harness.h"
#include "tests/storage/faulty_file_system.h"
#include "tests/storage/temporary_directory.h"

namespace mneme {

// An engine whose sessions outlive it, on a disk that can fail.
class DurableEngine {
 public:
  explicit DurableEngine(std::filesystem::path model_dir, HarnessOptions options = {},
                         Durability durability = Durability::kSync);

  LoopHarness& operator*() { return *engine_; }
  LoopHarness* operator->() { return engine_.get(); }
  FaultyFileSystem& disk() { return *disk_; }
  std::string data_dir() const { return directory_ / "data"; }
  const std::filesystem::path& model_dir() const { return model_dir_; }

  // Ends the engine, if one runs, as a server that stops does.
  void Stop() { engine_.reset(); }
  // Begins anew from what is on the disk, with the model in `model_dir` if one is given.
  void Start(const std::filesystem::path& model_dir = {});
  // Cuts the power at the disk's operation with this number, counted from now.
  void CutPowerAt(int operation);
  bool power_is_cut() const { return cut_; }
  // The same after a loss of power: what was not synced is gone.
  void CutPowerAndStart();

 private:
  const TemporaryDirectory directory_;
  std::filesystem::path model_dir_;
  HarnessOptions options_;
  const std::shared_ptr<FaultyFileSystem> disk_;
  std::atomic<bool> cut_ = false;
  std::unique_ptr<LoopHarness> engine_;
};

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_DURABILITY_DURABLE_ENGINE_H_
