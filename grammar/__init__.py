"""The grammar of the `.cnn` language, `cnn.lark`. It is a package so that the file is found next to
an installed cnncc as well as in a checkout."""
