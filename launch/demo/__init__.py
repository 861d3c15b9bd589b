"""The demo: a tiny model learns arithmetic on two CPU cores, through the whole product."""
