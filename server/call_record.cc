#include "server/call_record.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "server/convert_status.h"

namespace mneme {
namespace {

// "CreateSession" as a label: "create_session".
std::string SnakeCase(const std::string& name) {
  std::string snake;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isupper(byte) && !snake.empty()) snake += '_';
    snake += absl::ascii_tolower(byte);
  }
  return snake;
}

}  // namespace

CallRecord::CallRecord(const ServiceContext& context, std::string rpc, std::string tenant,
                       bool frequent)
    : context_(context),
      rpc_(std::move(rpc)),
      tenant_(std::move(tenant)),
      frequent_(frequent),
      arrival_(context.clock.Now()) {
  context_.calls->Enter();
}

void CallRecord::End(const absl::Status& status) const {
  const absl::Duration time = context_.clock.Now() - arrival_;
  const std::string code = StatusName(status.code());
  context_.metrics.OnCallEnd(SnakeCase(rpc_), code, time);
  LogFields fields = {{"rpc", rpc_}, {"tenant", tenant_}};
  if (!session_id.empty()) fields.emplace_back("session", session_id);
  if (!request_id.empty()) fields.emplace_back("request", request_id);
  fields.emplace_back("status", code);
  // Only of errors that are the server's: those of requests may quote the request.
  if (status.code() == absl::StatusCode::kInternal) {
    fields.emplace_back("message", std::string(status.message()));
  }
  if (tokens_in > 0) fields.emplace_back("tokens_in", tokens_in);
  if (tokens_out > 0) fields.emplace_back("tokens_out", tokens_out);
  fields.emplace_back("ms", absl::ToDoubleMilliseconds(time));
  context_.logger.Log(frequent_ ? spdlog::level::debug : spdlog::level::info, "request", fields);
}

}  // namespace mneme
