"""The HTTP service and its page: takes images, scores them, keeps and shows results."""
