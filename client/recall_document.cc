#include "client/recall_document.h"

#include <algorithm>
#include <random>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

// Draws that are the same everywhere; the standard library's distributions are not.
class Draw {
 public:
  explicit Draw(uint64_t seed) : engine_(seed) {}

  // In [0, 1).
  double Unit() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

  // In [0, size).
  size_t Index(size_t size) {
    return std::min(size - 1, static_cast<size_t>(Unit() * static_cast<double>(size)));
  }

  const std::string& Element(const std::vector<std::string>& list) {
    return list[Index(list.size())];
  }

  // An index with weight 1 / (index + 1).
  size_t Zipf(size_t size) {
    double total = 0;
    for (size_t i = 0; i < size; ++i) total += 1.0 / static_cast<double>(i + 1);
    double rest = Unit() * total;
    for (size_t i = 0; i < size; ++i) {
      rest -= 1.0 / static_cast<double>(i + 1);
      if (rest < 0) return i;
    }
    return size - 1;
  }

  // `count` different numbers of [0, size), in no particular order.
  std::vector<size_t> Sample(size_t size, size_t count) {
    std::set<size_t> chosen;
    std::vector<size_t> sample;
    while (sample.size() < count) {
      if (const size_t i = Index(size); chosen.insert(i).second) sample.push_back(i);
    }
    return sample;
  }

 private:
  std::mt19937_64 engine_;
};

class Writer {
 public:
  Writer(const RecallTask& task, const RecallOptions& options, const TokenCounter& count_tokens)
      : task_(task), options_(options), count_tokens_(count_tokens), draw_(options.seed) {}

  absl::StatusOr<RecallDocument> Write() {
    MNEME_RETURN_IF_ERROR(FillUp());
    MNEME_RETURN_IF_ERROR(PlaceFacts());
    MNEME_RETURN_IF_ERROR(FillUp());  // facts may be shorter than what they replace
    SetEnds();
    return std::move(document_);
  }

 private:
  absl::StatusOr<uint64_t> Count(const std::string& sentence) {
    MNEME_ASSIGN_OR_RETURN(const uint64_t tokens, count_tokens_(sentence));
    if (tokens == 0) return absl::InvalidArgumentError("a sentence of the document has no tokens");
    return tokens;
  }

  std::string Filler() {
    const std::string& text = draw_.Element(task_.filler);
    std::string sentence;
    size_t end = 0;
    for (size_t open = text.find('{'); open != std::string::npos; open = text.find('{', end)) {
      const size_t close = text.find('}', open);
      absl::StrAppend(&sentence, text.substr(end, open - end),
                      Word(text.substr(open + 1, close - open - 1)));
      end = close + 1;
    }
    return sentence + text.substr(end);
  }

  const std::string& Word(const std::string& slot) {
    const std::vector<std::string>& words = task_.words.at(slot);
    const auto& uniform = task_.uniform_slots;
    const bool is_uniform = std::find(uniform.begin(), uniform.end(), slot) != uniform.end();
    return is_uniform ? draw_.Element(words) : words[draw_.Zipf(words.size())];
  }

  absl::Status FillUp() {
    while (document_.total_tokens < options_.tokens) {
      std::string sentence = absl::StrCat(document_.sentences.empty() ? "" : " ", Filler());
      MNEME_ASSIGN_OR_RETURN(const uint64_t tokens, Count(sentence));
      document_.sentences.push_back(std::move(sentence));
      sentence_tokens_.push_back(tokens);
      document_.total_tokens += tokens;
    }
    return absl::OkStatus();
  }

  absl::Status PlaceFacts() {
    const size_t attributes = task_.words.at("attribute").size();
    const size_t pairs = task_.words.at("name").size() * attributes;
    const size_t most = std::min(pairs, document_.sentences.size());
    if (options_.facts > most) {
      return absl::InvalidArgumentError(absl::StrCat(
          options_.facts, " facts do not fit: the document has ", document_.sentences.size(),
          " sentences and the task ", pairs, " pairs of name and attribute"));
    }
    places_ = draw_.Sample(document_.sentences.size(), options_.facts);
    std::sort(places_.begin(), places_.end());
    const std::vector<size_t> chosen = draw_.Sample(pairs, options_.facts);
    for (size_t i = 0; i < places_.size(); ++i) {
      MNEME_RETURN_IF_ERROR(PlaceFact(places_[i], chosen[i] / attributes, chosen[i] % attributes));
    }
    return absl::OkStatus();
  }

  absl::Status PlaceFact(size_t place, size_t name, size_t attribute) {
    RecallFact fact;
    fact.name = task_.words.at("name")[name];
    fact.attribute = task_.words.at("attribute")[attribute];
    for (uint32_t i = 0; i < task_.code_digits; ++i) {
      fact.code += static_cast<char>('0' + draw_.Index(10));
    }
    const std::vector<std::pair<std::string, std::string>> slots = {
        {"{name}", fact.name}, {"{attribute}", fact.attribute}, {"{code}", fact.code}};
    std::string sentence =
        absl::StrCat(place == 0 ? "" : " ", absl::StrReplaceAll(draw_.Element(task_.fact), slots));
    fact.question = absl::StrReplaceAll(draw_.Element(task_.question), slots);
    MNEME_ASSIGN_OR_RETURN(const uint64_t tokens, Count(sentence));
    document_.total_tokens = document_.total_tokens - sentence_tokens_[place] + tokens;
    document_.sentences[place] = std::move(sentence);
    sentence_tokens_[place] = tokens;
    document_.facts.push_back(std::move(fact));
    return absl::OkStatus();
  }

  void SetEnds() {
    uint64_t tokens = 0;
    size_t fact = 0;
    for (size_t i = 0; i < sentence_tokens_.size() && fact < places_.size(); ++i) {
      tokens += sentence_tokens_[i];
      if (places_[fact] == i) document_.facts[fact++].end_tokens = tokens;
    }
  }

  const RecallTask& task_;
  const RecallOptions& options_;
  const TokenCounter& count_tokens_;
  Draw draw_;
  RecallDocument document_;
  std::vector<uint64_t> sentence_tokens_;
  std::vector<size_t> places_;  // the facts' sentences, ascending
};

}  // namespace

absl::StatusOr<RecallDocument> MakeRecallDocument(const RecallTask& task,
                                                  const RecallOptions& options,
                                                  const TokenCounter& count_tokens) {
  if (options.tokens == 0) return absl::InvalidArgumentError("a document needs tokens");
  return Writer(task, options, count_tokens).Write();
}

}  // namespace mneme
