#ifndef MNEME_TESTS_STORAGE_TEMPORARY_DIRECTORY_H_
#define MNEME_TESTS_STORAGE_TEMPORARY_DIRECTORY_H_

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/check.h"

namespace mneme {

// A new directory, removed with its owner.
class TemporaryDirectory {
 public:
  TemporaryDirectory() : path_(std::filesystem::temp_directory_path() / "mneme_XXXXXX") {
    MNEME_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace mneme

#endif  // MNEME_TESTS_STORAGE_TEMPORARY_DIRECTORY_H_
