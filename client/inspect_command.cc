// mneme inspect: what a session has learnt, layer by layer.

#include <CLI/CLI.hpp>
#include <memory>
#include <ostream>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/commands.h"
#include "client/connection.h"
#include "client/status_text.h"
#include "mneme/v1/sessions.grpc.pb.h"

namespace mneme {
namespace {

absl::Status RunInspect(const std::string& session_id, Console& console,
                        const Connection& connection) {
  Call call(connection);
  const auto stub = v1::SessionService::NewStub(connection.channel());
  v1::InspectSessionRequest request;
  request.set_session_id(session_id);
  v1::InspectSessionResponse response;
  MNEME_RETURN_IF_ERROR(FromRpc(stub->InspectSession(call.context(), request, &response)));
  console.out << absl::StrFormat("session %s  position %d  version %d\n", response.session_id(),
                                 response.position(), response.version());
  console.out << absl::StrFormat("%5s %12s %12s %9s %11s %8s %8s %8s %9s\n", "layer", "|delta|",
                                 "|W_down|", "ratio", "last |U|", "applied", "clipped", "skipped",
                                 "eff. rank");
  for (const v1::LayerInspection& layer : response.layers()) {
    const int updates = layer.update_norms_size();
    console.out << absl::StrFormat(
        "%5d %12.5g %12.5g %9.3g %11.4g %8d %8d %8d %9.1f\n", layer.layer(), layer.delta_norm(),
        layer.weight_norm(), layer.relative_norm(),
        updates > 0 ? layer.update_norms(updates - 1) : 0.0, layer.applied_updates(),
        layer.clipped_updates(), layer.skipped_updates(), layer.effective_rank());
  }
  return absl::OkStatus();
}

}  // namespace

void AddInspectCommand(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand("inspect", "Show a session's fast weights, by layer");
  auto session_id = std::make_shared<std::string>();
  command->add_option("session", *session_id, "The session's id")->required();
  command->footer("Example:\n  mneme inspect reader");
  command->callback([session_id, &line] {
    line.run = [session_id, &line](const Connection& connection) {
      return RunInspect(*session_id, line.console, connection);
    };
  });
}

}  // namespace mneme
