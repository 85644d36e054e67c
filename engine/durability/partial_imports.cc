#include "engine/durability/partial_imports.h"

#include <algorithm>
#include <vector>

namespace mneme {

const std::string* PartialImports::SessionOf(const Name& name) const {
  const auto found = imports_.find(name);
  return found == imports_.end() ? nullptr : &found->second.session_id;
}

void PartialImports::Add(const Name& name, std::string session_id,
                         std::shared_ptr<ArchiveFile> file) {
  imports_.emplace(name, Import{std::move(session_id), std::move(file), 0, clock_.Now()});
}

std::shared_ptr<ArchiveFile> PartialImports::Lend(const Name& name) {
  Import& import = imports_.at(name);
  ++import.streams;
  import.file->set_left(false);
  // Holding the file, the loan also keeps its address from being another's.
  return {import.file.get(), [this, name, post = post_, file = import.file](ArchiveFile*) mutable {
            post([this, name, file = std::move(file)] { TakeBack(name, file.get()); });
          }};
}

void PartialImports::TakeBack(const Name& name, const ArchiveFile* file) {
  const auto found = imports_.find(name);
  if (found == imports_.end() || found->second.file.get() != file) return;
  Import& import = found->second;
  if (--import.streams > 0) return;
  import.left = clock_.Now();
  import.file->set_left(true);
  if (import.file->failed()) {
    imports_.erase(found);
  } else {
    DropBeyondLimits();
  }
}

void PartialImports::Drop(const ArchiveFile& file) {
  std::erase_if(imports_, [&file](const auto& entry) { return entry.second.file.get() == &file; });
}

void PartialImports::DropBeyondLimits() {
  std::vector<std::map<Name, Import>::iterator> left;
  for (auto entry = imports_.begin(); entry != imports_.end(); ++entry) {
    if (entry->second.streams == 0) left.push_back(entry);
  }
  std::sort(left.begin(), left.end(),
            [](const auto& a, const auto& b) { return a->second.left > b->second.left; });
  uint64_t bytes = 0;
  for (size_t i = 0; i < left.size(); ++i) {
    bytes += left[i]->second.file->size_bytes();
    if (i >= kMaxLeft || (i > 0 && bytes > max_left_bytes_)) imports_.erase(left[i]);
  }
}

void PartialImports::DropOld() {
  const absl::Time now = clock_.Now();
  std::erase_if(imports_, [now](const auto& entry) {
    return entry.second.streams == 0 && now >= entry.second.left + kKeepTime;
  });
}

absl::Time PartialImports::NextExpiry() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [name, import] : imports_) {
    if (import.streams == 0) next = std::min(next, import.left + kKeepTime);
  }
  return next;
}

}  // namespace mneme
