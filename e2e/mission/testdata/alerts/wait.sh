# What the first start does, such as loading a dump, takes until somebody says that it is done.
until [ -e /tmp/done ]; do sleep 0.2; done
