// Hostile tokenizer files and hostile text. The first byte chooses: a tokenizer.json out of the
// rest, a tokenizer.json whose regex is the rest, or text for a tokenizer that works.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/check.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/detokenizer.h"
#include "engine/tokenizer/nfc.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"
#include "nlohmann/json.hpp"

namespace mneme {
namespace {

using Json = nlohmann::json;

Json FileWithRegex(const std::string& regex) {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[SpellingOfByte(static_cast<uint8_t>(byte))] = byte;
  vocab["aa"] = 256;
  vocab["aaaa"] = 257;
  const Json split = {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}};
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return {
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a a", "aa aa"}}}},
      {"added_tokens",
       {{{"content", "<s>"}, {"id", 258}, {"special", true}},
        {{"content", "<t>"}, {"id", 259}, {"special", false}}}},
      {"normalizer", {{"type", "NFC"}}},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, bytes}}}},
      {"decoder", {{"type", "ByteLevel"}}},
  };
}

// What holds of every tokenizer that loads and every text.
void CheckText(const Tokenizer& tokenizer, absl::string_view text) {
  for (const bool parse_special : {false, true}) {
    const auto ids = tokenizer.Encode(text, parse_special);
    if (!ids.ok()) continue;
    IncrementalDetokenizer detokenizer(tokenizer);
    std::string streamed;
    for (int32_t id : *ids) {
      MNEME_CHECK(parse_special || !tokenizer.IsSpecial(id));
      streamed += detokenizer.Push(id);
      MNEME_CHECK(IsValidUtf8(streamed));
    }
    streamed += detokenizer.Flush();
    MNEME_CHECK(streamed == tokenizer.Decode(*ids, /*include_special=*/false).value());
  }
}

void FuzzFile(absl::string_view json) {
  const auto tokenizer = Tokenizer::FromJson(json, json);
  if (tokenizer.ok())
    CheckText(**tokenizer, "Hello <s>, it's 2026!\n\n  caf\u00E9 e\u0301 \u4E2D <t>");
}

void FuzzRegex(absl::string_view regex) {
  if (IsValidUtf8(regex)) FuzzFile(FileWithRegex(std::string(regex)).dump());
}

void FuzzText(absl::string_view text) {
  static const auto tokenizer =
      std::move(
          Tokenizer::FromJson(
              FileWithRegex(
                  R"((?i:'s|'ll)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
                  R"(|\s*[\r\n]+|\s+(?!\S)|\s+)")
                  .dump(),
              ""))
          .value();
  CheckText(*tokenizer, text);
  const auto ids = tokenizer->Encode(text, /*parse_special=*/true);
  MNEME_CHECK(ids.ok() == IsValidUtf8(text));
  if (ids.ok()) MNEME_CHECK(tokenizer->Decode(*ids, true).value() == NormalizeNfc(text));
}

}  // namespace
}  // namespace mneme

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 3 == 0) mneme::FuzzFile(rest);
  if (data[0] % 3 == 1) mneme::FuzzRegex(rest);
  if (data[0] % 3 == 2) mneme::FuzzText(rest);
  return 0;
}
