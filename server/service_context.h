#ifndef MNEME_SERVER_SERVICE_CONTEXT_H_
#define MNEME_SERVER_SERVICE_CONTEXT_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/engine.h"
#include "server/call_count.h"
#include "server/convert_inference.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/model_description.h"

namespace mneme {

// What every service works with. What it refers to outlives the Server.
struct ServiceContext {
  Engine& engine;
  Metrics& metrics;
  const Logger& logger;
  const Clock& clock;
  InputCodec codec;
  ModelDescription model;
  std::string backend;  // "cpu"
  int64_t max_message_bytes = 0;
  bool trust_tenant_metadata = false;
  absl::Time start_time;
  CallCount* calls = nullptr;  // the Server's own
};

}  // namespace mneme

#endif  // MNEME_SERVER_SERVICE_CONTEXT_H_
