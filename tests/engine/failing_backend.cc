#include "tests/engine/failing_backend.h"

#include <utility>

#include "base/status_macros.h"
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

class FailingBackend final : public ForwardingBackend {
 public:
  FailingBackend(std::unique_ptr<Backend> inner, const std::atomic<bool>* broken)
      : ForwardingBackend(std::move(inner)), broken_(broken) {}

  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    MNEME_ASSIGN_OR_RETURN(auto stream, ForwardingBackend::CreateStream());
    return std::make_unique<FailingStream>(std::move(stream), broken_);
  }

 private:
  const std::atomic<bool>* const broken_;
};

}  // namespace

std::unique_ptr<Backend> MakeFailingBackend(std::unique_ptr<Backend> inner,
                                            const std::atomic<bool>* broken) {
  return std::make_unique<FailingBackend>(std::move(inner), broken);
}

}  // namespace mneme
