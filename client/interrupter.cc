#include "client/interrupter.h"

#include <grpcpp/client_context.h>

#include <utility>

namespace mneme {

Interrupter::Interrupter(std::function<void()> when_idle) : when_idle_(std::move(when_idle)) {}

void Interrupter::Add(grpc::ClientContext* context) {
  std::lock_guard lock(mutex_);
  contexts_.insert(context);
}

void Interrupter::Remove(grpc::ClientContext* context) {
  std::lock_guard lock(mutex_);
  contexts_.erase(context);
}

void Interrupter::Interrupt() {
  {
    std::lock_guard lock(mutex_);
    interrupted_ = true;
    for (grpc::ClientContext* context : contexts_) context->TryCancel();
    if (!contexts_.empty()) return;
  }
  when_idle_();
}

bool Interrupter::interrupted() const {
  std::lock_guard lock(mutex_);
  return interrupted_;
}

}  // namespace mneme
