#include "client/sampling_flags.h"

#include <CLI/CLI.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "mneme/v1/inference.pb.h"

namespace mneme {
namespace {

absl::Status FillLogitBias(const std::vector<std::string>& biases, v1::SamplingParams& sampling) {
  for (const std::string& text : biases) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    uint32_t id = 0;
    float bias = 0;
    if (!absl::SimpleAtoi(parts.first, &id) || !absl::SimpleAtof(parts.second, &bias)) {
      return absl::InvalidArgumentError(absl::StrCat("--logit_bias ", text, ": not ID=BIAS"));
    }
    (*sampling.mutable_logit_bias())[id] = bias;
  }
  return absl::OkStatus();
}

}  // namespace

void AddSamplingFlags(CLI::App& command, SamplingFlags& flags) {
  const std::string group = "Sampling (what is absent the server chooses)";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group(group);
  };
  add("--temperature", flags.temperature, "0: always the most probable token");
  add("--top_k", flags.top_k, "Keep the k most probable tokens; 0: off");
  add("--top_p", flags.top_p, "Keep the smallest set of this probability, in (0, 1]");
  add("--min_p", flags.min_p, "Drop tokens below this share of the most probable, in [0, 1]");
  add("--repetition_penalty", flags.repetition_penalty, "> 0; 1: off");
  add("--presence_penalty", flags.presence_penalty, "In [-2, 2]; 0: off");
  add("--frequency_penalty", flags.frequency_penalty, "In [-2, 2]; 0: off");
  add("--seed", flags.seed, "The same seed at the same position gives the same text");
  add("--logit_bias", flags.logit_bias, "ID=BIAS, added to the logit; may be given many times")
      ->allow_extra_args(false);
  add("--max_tokens", flags.max_tokens, "The most tokens to generate");
  add("--min_tokens", flags.min_tokens, "No stop before so many tokens");
  add("--stop", flags.stop, "A string that ends the text; may be given many times")
      ->allow_extra_args(false);
  add("--stop_token_id", flags.stop_token_ids,
      "A token that ends the text; may be given many times")
      ->allow_extra_args(false);
  command.add_flag("--ignore_eos", flags.ignore_eos, "Go on after the end of the text")
      ->group(group);
}

absl::Status FillSampling(const SamplingFlags& flags, v1::GenerateRequest& request) {
  v1::SamplingParams& sampling = *request.mutable_sampling();
  if (flags.temperature) sampling.set_temperature(*flags.temperature);
  if (flags.top_p) sampling.set_top_p(*flags.top_p);
  if (flags.min_p) sampling.set_min_p(*flags.min_p);
  if (flags.repetition_penalty) sampling.set_repetition_penalty(*flags.repetition_penalty);
  if (flags.presence_penalty) sampling.set_presence_penalty(*flags.presence_penalty);
  if (flags.frequency_penalty) sampling.set_frequency_penalty(*flags.frequency_penalty);
  if (flags.top_k) sampling.set_top_k(*flags.top_k);
  if (flags.seed) sampling.set_seed(*flags.seed);
  if (flags.max_tokens) request.set_max_tokens(*flags.max_tokens);
  if (flags.min_tokens) request.set_min_tokens(*flags.min_tokens);
  for (const std::string& stop : flags.stop) request.add_stop(stop);
  for (const uint32_t id : flags.stop_token_ids) request.add_stop_token_ids(id);
  request.set_ignore_eos(flags.ignore_eos);
  return FillLogitBias(flags.logit_bias, sampling);
}

}  // namespace mneme
