"""Studies fetched from archives and watched folders, and results stored back beside them."""
