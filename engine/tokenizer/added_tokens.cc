#include "engine/tokenizer/added_tokens.h"

#include <cstddef>

namespace mneme {
namespace {

uint64_t EdgeKey(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<unsigned char>(byte);
}

}  // namespace

void AddedTokenFinder::Add(absl::string_view content, int32_t id, bool special) {
  if (content.empty()) return;
  begins_[static_cast<unsigned char>(content[0])] = true;
  uint32_t node = 0;
  for (char byte : content) {
    const auto [edge, added] = edges_.emplace(EdgeKey(node, byte), nodes_);
    if (added) ++nodes_;
    node = edge->second;
  }
  tokens_.insert_or_assign(node, Token{id, special});
}

AddedTokenFinder::Match AddedTokenFinder::LongestAt(absl::string_view text) const {
  Match longest;
  if (!begins_[static_cast<unsigned char>(text[0])]) return longest;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto edge = edges_.find(EdgeKey(node, text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    const auto token = tokens_.find(node);
    if (token != tokens_.end()) longest = {i + 1, token->second};
  }
  return longest;
}

std::vector<AddedTokenFinder::Segment> AddedTokenFinder::Split(absl::string_view text,
                                                               bool parse_special) const {
  std::vector<Segment> segments;
  size_t done = 0;
  size_t at = 0;
  while (at < text.size()) {
    const Match match = LongestAt(text.substr(at));
    if (match.length == 0) {
      ++at;
    } else if (match.token.special && !parse_special) {
      at += match.length;
    } else {
      if (at > done) segments.push_back({text.substr(done, at - done), std::nullopt});
      segments.push_back({text.substr(at, match.length), match.token.id});
      at += match.length;
      done = at;
    }
  }
  if (done < text.size()) segments.push_back({text.substr(done), std::nullopt});
  return segments;
}

}  // namespace mneme
