// mneme health, mneme info: the server itself.

#include <google/protobuf/util/json_util.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/commands.h"
#include "client/connection.h"
#include "client/status_text.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "mneme/v1/admin.grpc.pb.h"

namespace mneme {
namespace {

using grpc::health::v1::HealthCheckResponse;

struct HealthOptions {
  std::string service;
  double wait_s = 0;
};

absl::Status Judge(const HealthCheckResponse& response) {
  if (response.status() == HealthCheckResponse::SERVING) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("the server is ", HealthCheckResponse::ServingStatus_Name(response.status())));
}

// Waits, with a deadline, until the server can be reached and serves.
absl::Status WaitUntilServing(const HealthOptions& options, const Connection& connection) {
  Call call(connection);
  call.context()->set_deadline(std::chrono::system_clock::now() +
                               std::chrono::milliseconds(std::int64_t(options.wait_s * 1e3)));
  call.context()->set_wait_for_ready(true);
  const auto stub = grpc::health::v1::Health::NewStub(connection.channel());
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(options.service);
  const auto stream = stub->Watch(call.context(), request);
  HealthCheckResponse response;
  while (stream->Read(&response)) {
    if (!Judge(response).ok()) continue;
    call.context()->TryCancel();
    stream->Finish();
    return absl::OkStatus();
  }
  return FromRpc(stream->Finish());
}

absl::Status Check(const HealthOptions& options, const Connection& connection) {
  Call call(connection);
  const auto stub = grpc::health::v1::Health::NewStub(connection.channel());
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(options.service);
  HealthCheckResponse response;
  MNEME_RETURN_IF_ERROR(FromRpc(stub->Check(call.context(), request, &response)));
  return Judge(response);
}

absl::Status RunHealth(const HealthOptions& options, Console& console,
                       const Connection& connection) {
  MNEME_RETURN_IF_ERROR(options.wait_s > 0 ? WaitUntilServing(options, connection)
                                           : Check(options, connection));
  console.out << "SERVING" << std::endl;
  return absl::OkStatus();
}

using AdminStub = v1::AdminService::Stub;

// Calls `method` with an empty request and prints the answer as JSON.
template <typename Request, typename Response>
absl::Status Print(grpc::Status (AdminStub::*method)(grpc::ClientContext*, const Request&,
                                                     Response*),
                   Console& console, const Connection& connection) {
  Call call(connection);
  const auto stub = v1::AdminService::NewStub(connection.channel());
  Response response;
  MNEME_RETURN_IF_ERROR(FromRpc((*stub.*method)(call.context(), Request(), &response)));
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  if (google::protobuf::util::MessageToJsonString(response, &json, options).ok()) {
    console.out << Response::descriptor()->name() << " " << json;
  }
  return absl::OkStatus();
}

absl::Status RunInfo(Console& console, const Connection& connection) {
  MNEME_RETURN_IF_ERROR(Print(&AdminStub::GetServerInfo, console, connection));
  MNEME_RETURN_IF_ERROR(Print(&AdminStub::GetModelInfo, console, connection));
  return Print(&AdminStub::GetLoad, console, connection);
}

}  // namespace

void AddServerCommands(CLI::App& app, CommandLine& line) {
  CLI::App* health = app.add_subcommand("health", "Ask whether the server serves");
  auto options = std::make_shared<HealthOptions>();
  health->add_option("--service", options->service, "A service's full name; absent: the server");
  health->add_option("--wait", options->wait_s, "Wait up to so many seconds until it serves")
      ->check(CLI::Range(0.0, 1e6));
  health->footer("Exit code 0 means SERVING. Example:\n  mneme health --wait 30");
  health->callback([options, &line] {
    line.run = [options, &line](const Connection& connection) {
      return RunHealth(*options, line.console, connection);
    };
  });
  CLI::App* info = app.add_subcommand("info", "Print the server, its model and its load as JSON");
  info->callback([&line] {
    line.run = [&line](const Connection& connection) { return RunInfo(line.console, connection); };
  });
}

}  // namespace mneme
