#include "tests/engine/failing_backend.h"

#include <cstdlib>
#include <iostream>
#include <utility>

#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/engine/forwarding_backend.h"

namespace mneme {
namespace {

class FailingStream final : public ForwardingStream {
 public:
  FailingStream(std::unique_ptr<Stream> inner, const std::atomic<bool>* broken)
      : ForwardingStream(std::move(inner)), broken_(broken) {}

  absl::Status Synchronize() override {
    MNEME_RETURN_IF_ERROR(ForwardingStream::Synchronize());
    return *broken_ ? absl::InternalError("the device has gone away") : absl::OkStatus();
  }

 private:
  const std::atomic<bool>* const broken_;
};

class FaultingStream final : public ForwardingStream {
 public:
  FaultingStream(std::unique_ptr<Stream> inner, const std::atomic<bool>* broken)
      : ForwardingStream(std::move(inner)), broken_(broken) {}

  void BeginStep(const RowBatch& batch) override {
    ForwardingStream::BeginStep(batch);
    if (*broken_) ForwardingStream::CopyRows(MissingMatrix(1), MissingMatrix(2));
  }

 private:
  const std::atomic<bool>* const broken_;
};

// Streams of type T, made from the inner stream and `broken`.
template <typename T>
class BreakableBackend final : public ForwardingBackend {
 public:
  BreakableBackend(std::unique_ptr<Backend> inner, const std::atomic<bool>* broken)
      : ForwardingBackend(std::move(inner)), broken_(broken) {}

  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    MNEME_ASSIGN_OR_RETURN(auto stream, ForwardingBackend::CreateStream());
    return std::make_unique<T>(std::move(stream), broken_);
  }

 private:
  const std::atomic<bool>* const broken_;
};

}  // namespace

std::unique_ptr<Backend> MakeFailingBackend(std::unique_ptr<Backend> inner,
                                            const std::atomic<bool>* broken) {
  return std::make_unique<BreakableBackend<FailingStream>>(std::move(inner), broken);
}

std::unique_ptr<Backend> MakeFaultingBackend(std::unique_ptr<Backend> inner,
                                             const std::atomic<bool>* broken) {
  return std::make_unique<BreakableBackend<FaultingStream>>(std::move(inner), broken);
}

void EndDeathTest(int exit_code) {
  const testing::TestResult& result =
      *testing::UnitTest::GetInstance()->current_test_info()->result();
  for (int i = 0; i < result.total_part_count(); ++i) {
    const testing::TestPartResult& part = result.GetTestPartResult(i);
    if (part.failed()) std::cerr << part << std::flush;
  }
  std::exit(result.Failed() ? 99 : exit_code);
}

Matrix MissingMatrix(int64_t number) {
  // Null pages are never mapped.
  return {reinterpret_cast<void*>(number * 1024), DType::kF32, 1, 4, 4};
}

}  // namespace mneme
