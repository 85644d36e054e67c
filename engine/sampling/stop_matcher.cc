#include "engine/sampling/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace mneme {
namespace {

constexpr size_t kMaxStops = 64;

bool IsContinuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

absl::Status ValidateStopStrings(absl::Span<const std::string> stops) {
  if (stops.size() > kMaxStops) {
    return absl::InvalidArgumentError(
        absl::StrCat("stop has ", stops.size(), " strings; it may have at most ", kMaxStops, "."));
  }
  for (size_t i = 0; i < stops.size(); ++i) {
    const std::string name = absl::StrCat("stop[", i, "]");
    if (stops[i].empty()) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is empty; leave it out."));
    }
    if (stops[i].size() > kMaxStopBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, " has ", stops[i].size(), " bytes; it may have at most ", kMaxStopBytes, "."));
    }
    if (IsContinuation(stops[i].front())) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " begins inside a UTF-8 character; it must be whole UTF-8 text."));
    }
  }
  return absl::OkStatus();
}

StopMatcher::Pattern::Pattern(std::string text) : text_(std::move(text)), borders_(text_.size()) {
  for (size_t i = 1; i < text_.size(); ++i) {
    size_t border = borders_[i - 1];
    while (border > 0 && text_[border] != text_[i]) border = borders_[border - 1];
    borders_[i] = text_[border] == text_[i] ? border + 1 : 0;
  }
}

bool StopMatcher::Pattern::Advance(char byte) {
  while (matched_ > 0 && text_[matched_] != byte) matched_ = borders_[matched_ - 1];
  if (text_[matched_] == byte) ++matched_;
  if (matched_ < text_.size()) return false;
  matched_ = borders_.back();
  return true;
}

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& stop : stops) patterns_.emplace_back(std::move(stop));
}

StopMatcher::Result StopMatcher::Push(absl::string_view piece) {
  size_t received = held_.size();
  held_.append(piece.data(), piece.size());
  for (const char byte : piece) {
    ++received;
    if (const Pattern* stop = Advance(byte); stop != nullptr) {
      Result result{held_.substr(0, received - stop->text().size()), stop->text()};
      held_.clear();
      return result;
    }
  }
  size_t kept = 0;
  for (const Pattern& pattern : patterns_) kept = std::max(kept, pattern.matched());
  Result result{held_.substr(0, held_.size() - kept), std::nullopt};
  held_.erase(0, held_.size() - kept);
  return result;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

const StopMatcher::Pattern* StopMatcher::Advance(char byte) {
  const Pattern* longest = nullptr;
  for (Pattern& pattern : patterns_) {
    const bool complete = pattern.Advance(byte);
    if (complete && (longest == nullptr || pattern.text().size() > longest->text().size())) {
      longest = &pattern;
    }
  }
  return longest;
}

}  // namespace mneme
