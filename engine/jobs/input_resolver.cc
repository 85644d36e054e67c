#include "engine/jobs/input_resolver.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/error.h"

namespace mneme {
namespace {

absl::Status Invalid(const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = ErrorReason::kInvalidInput});
}

}  // namespace

InputResolver::InputResolver(absl::Span<const int32_t> log, int64_t position,
                             std::optional<int64_t> open_turn, int64_t vocab_size)
    : position_(position), open_turn_(open_turn), vocab_size_(vocab_size) {
  if (!open_turn_) return;
  turn_.assign(log.begin() + *open_turn_, log.begin() + position_);
}

absl::StatusOr<std::vector<int32_t>> InputResolver::Resolve(const InputPiece& piece) {
  if (piece.ids.empty()) return Invalid("the input is empty: it has no tokens");
  for (int32_t id : piece.ids) {
    if (id >= 0 && id < vocab_size_) continue;
    return Invalid(absl::StrCat("token id ", id, " is not in the vocabulary of ", vocab_size_));
  }
  std::vector<int32_t> tokens;
  tokens.reserve(1 + piece.turn_end.size() + piece.ids.size());
  if (position_ == 0 && piece.bos && piece.ids.front() != *piece.bos) tokens.push_back(*piece.bos);
  if (open_turn_ && !piece.turn_end.empty()) {
    const auto skipped = static_cast<std::ptrdiff_t>(AlreadyLogged(piece.turn_end));
    tokens.insert(tokens.end(), piece.turn_end.begin() + skipped, piece.turn_end.end());
    open_turn_.reset();
    turn_.clear();
  }
  tokens.insert(tokens.end(), piece.ids.begin(), piece.ids.end());
  position_ += static_cast<int64_t>(tokens.size());
  if (open_turn_) turn_.insert(turn_.end(), tokens.begin(), tokens.end());
  if (piece.opens_turn) {
    open_turn_ = position_;
    turn_.clear();
  }
  return tokens;
}

size_t InputResolver::AlreadyLogged(absl::Span<const int32_t> turn_end) const {
  for (size_t count = std::min(turn_end.size(), turn_.size()); count > 0; --count) {
    if (std::equal(turn_.end() - static_cast<std::ptrdiff_t>(count), turn_.end(),
                   turn_end.begin())) {
      return count;
    }
  }
  return 0;
}

}  // namespace mneme
