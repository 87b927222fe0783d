# fish --no-config completion.fish SCRIPT FOLDER_OF_COMMAND: what fish completes.
set -gx PATH $argv[2] $PATH
source $argv[1]
function expect -a line expected
    set -l found (complete -C "$line" | string replace -r '\t.*' '')
    if test "$found" != "$expected"
        echo "$line: expected <$expected>, found <$found>"
        exit 1
    end
end
expect "crossdock con" convert
expect "crossdock convert a b --to u" universal
expect "crossdock convert a b --to=u" --to=universal
expect "crossdock convert a b --to zero3 --world" --world-size
