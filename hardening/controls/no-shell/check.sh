set -eu
files=$(find "$ROOT" -xdev ! -type d | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
shells=$(find "$ROOT" -xdev ! -type d \( -name sh -o -name bash -o -name rbash -o -name dash -o -name ash -o -name zsh \
    -o -name ksh -o -name 'ksh93*' -o -name mksh -o -name csh -o -name tcsh -o -name fish -o -name busybox \
    -o -name 'busybox.*' -o -name toybox -o -name nu -o -name pwsh \) \( -perm /0111 -o -type l \) -printf '/%P\n' | sort)
if [ -n "$shells" ]; then
    printf 'shells:\n%s\n' "$shells"
    exit 1
fi
echo "$files files, none of them a shell"
