// mneme-simulate: the scheduler's policy on a million requests, in virtual time.

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>

#include "base/version.h"
#include "bench/progress.h"
#include "bench/simulation.h"

namespace mneme {
namespace {

constexpr char kDescription[] =
    "Runs the scheduler's own policy in virtual time: random chats and documents of several "
    "tenants,\nwith steps that take as long as measured ones. Prints times to the first token and "
    "between tokens,\ntokens a second, chats served in time a second, and Jain's index of "
    "fairness.";

struct Arguments {
  SimulationOptions options;
  std::string device = "h200";
  std::vector<std::string> scenarios = kScenarios;
  std::vector<std::string> policies = kPolicies;
  double target_ms = 0;
  std::string json_file;
};

void AddFlags(CLI::App& app, Arguments& arguments) {
  app.option_defaults()->always_capture_default();
  app.add_option("--device", arguments.device, "Whose steps: h200 (Qwen3-4B) or cpu (mneme-demo)")
      ->check(CLI::IsMember({"h200", "cpu"}));
  app.add_option("--scenario", arguments.scenarios, "What comes")
      ->delimiter(',')
      ->check(CLI::IsMember(kScenarios));
  app.add_option("--policy", arguments.policies, "Who is served")
      ->delimiter(',')
      ->check(CLI::IsMember(kPolicies));
  app.add_option("--requests", arguments.options.requests, "Of each run")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option("--seed", arguments.options.seed, "Of arrivals and lengths");
  app.add_option("--load", arguments.options.load,
                 "Work offered over what the device can do; 1.5 where a tenant is hostile")
      ->check(CLI::Range(0.01, 10.0));
  app.add_option("--target_inter_token_ms", arguments.target_ms, "0: the server's default")
      ->check(CLI::Range(0.0, 60000.0));
  app.add_option("--json", arguments.json_file, "Write the figures here, too");
}

int Run(Arguments& arguments) {
  SimulationOptions& options = arguments.options;
  options.device = *FindProfile(arguments.device);
  if (arguments.target_ms > 0) options.device.target_us = arguments.target_ms * 1000;
  std::vector<SimulationReport> reports;
  for (const std::string& scenario : arguments.scenarios) {
    for (const std::string& policy : arguments.policies) {
      options.scenario = scenario;
      options.policy = policy;
      reports.push_back(Simulate(options, [label = scenario + ", " + policy](double share) {
        ShowProgress(label, share);
      }));
    }
  }
  EndProgress();
  std::cout << SimulationText(reports);
  if (arguments.json_file.empty()) return 0;
  std::ofstream file(arguments.json_file);
  file << SimulationJson(reports) << std::flush;
  if (file.good()) return 0;
  std::cerr << "mneme-simulate: cannot write " << arguments.json_file << '\n';
  return 1;
}

}  // namespace
}  // namespace mneme

int main(int argc, char** argv) {
  CLI::App app(mneme::kDescription, "mneme-simulate");
  app.set_version_flag("--version", std::string("mneme-simulate ") + mneme::kVersion);
  mneme::Arguments arguments;
  mneme::AddFlags(app, arguments);
  CLI11_PARSE(app, argc, argv);
  return mneme::Run(arguments);
}
